"""What the kernels do not cover is named."""

import re
from subprocess import CalledProcessError
from types import SimpleNamespace

import pytest
import torch

from nla_cyclegan.kernels.coverage import uncovered, why_not
from nla_cyclegan.model.config import DiscriminatorConfig, GeneratorConfig


def test_the_papers_networks_are_covered():
    for precision in ("fp32", "bf16"):
        assert uncovered(GeneratorConfig(), DiscriminatorConfig(), precision=precision) is None
        other = GeneratorConfig(output="masked", nonlocal_blocks="all", nonlocal_gain="fixed")
        attended = DiscriminatorConfig(nonlocal_blocks=(0, 3))
        assert uncovered(other, attended, precision=precision) is None


@pytest.mark.parametrize(
    ("generator", "base", "precision", "reason"),
    [
        ({"norm": "group"}, 64, "bf16", "generator.norm group"),
        ({"upsample": "resize"}, 64, "bf16", "generator.upsample resize"),
        ({"base_channels": 12}, 64, "bf16", "generator.base_channels 12, not a multiple of 8 up to 128"),
        ({}, 256, "bf16", "discriminator.base_channels 256, not a multiple of 8 up to 128"),
        ({}, 64, "fp64", "precision fp64"),
    ],
)
def test_reasons(generator, base, precision, reason):
    networks = GeneratorConfig(**generator), DiscriminatorConfig(base_channels=base)
    assert uncovered(*networks, precision=precision) == reason


def test_every_field_of_a_network_is_known_to_the_kernels():
    """A new one is computed by kernels/networks.py too, or gives a reason in `uncovered`; then it is added here."""
    nonlocal_fields = {"nonlocal_blocks", "nonlocal_gain", "nonlocal_pooled", "nonlocal_scaled"}
    generator = {"base_channels", "num_blocks", "output", "norm", "upsample"}
    assert GeneratorConfig.model_fields.keys() == nonlocal_fields | generator
    assert DiscriminatorConfig.model_fields.keys() == nonlocal_fields | {"base_channels", "num_layers"}


def test_a_cpu_is_not_covered():
    reason = why_not(GeneratorConfig(), DiscriminatorConfig(), precision="bf16", device=torch.device("cpu"))
    assert reason == "the device is cpu"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, None),
        (RuntimeError("Failed to find C compiler. Please specify"), r"\(TRITON_CACHE_DIR\): Failed to find C compiler"),
        (CalledProcessError(1, ["gcc", "driver.c"]), "it needs gcc or clang, Python's headers, .*'gcc', 'driver.c'"),
        (
            PermissionError(13, "Permission denied", "/.triton"),
            r"Triton does not start here, .*Permission denied: '/\.triton'",
        ),
    ],
)
def test_a_gpu_where_triton_does_not_start_is_not_covered(monkeypatch, error, said):
    def start():
        if error:
            raise error

    runtime = pytest.importorskip("triton.runtime")
    monkeypatch.setattr(runtime, "driver", SimpleNamespace(active=SimpleNamespace(get_current_target=start)))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    reason = why_not(GeneratorConfig(), DiscriminatorConfig(), precision="bf16", device=torch.device("cuda"))
    assert reason is said or re.search(said, reason)
