"""Kernels compiled in the background, by several processes, without a GPU."""

import json

import pytest

from nla_cyclegan import DiscriminatorConfig, GeneratorConfig, ModelConfig
from nla_cyclegan.kernels.compilation.cache import mark_of, start_compiling

MODEL = ModelConfig(
    generator=GeneratorConfig(base_channels=8, num_blocks=0, nonlocal_blocks=()),
    discriminator=DiscriminatorConfig(base_channels=8, num_layers=1),
)


def compile_all(times: int = 1) -> None:
    started = [start_compiling(MODEL, "bf16", pairs=1, size=32, capability=90) for _ in range(times)]
    for process in started:
        assert process.wait() == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_machine_compiles_once(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    # A driver and two workers ask; one compiles, the others wait for it.
    compile_all(times=3)
    compiled = sorted(tmp_path.rglob("*.cubin"))
    kernels = {file.stem for file in compiled}
    assert {"channel_moments", "normalize", "grad_sums", "grad_apply", "few_to_many", "many_to_few", "outer"} <= kernels
    wanted = json.dumps([MODEL.model_dump(mode="json"), "bf16", 1, 32, 90])
    assert mark_of(wanted).exists()
    for file in compiled:
        file.unlink()
    compile_all()
    assert list(tmp_path.rglob("*.cubin")) == []
    assert mark_of(wanted.replace("90", "80")) != mark_of(wanted)


def test_what_fails_is_left_to_the_step(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    # Images of 2 pixels cannot be padded by 3.
    assert start_compiling(MODEL, "bf16", pairs=1, size=2, capability=90).wait() == 0
    assert [file.suffix for file in tmp_path.glob("nla-cyclegan-*")] == [".lock"]
