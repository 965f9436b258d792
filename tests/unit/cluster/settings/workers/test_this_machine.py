"""What the driver's own tool says about this machine's GPUs."""

from pathlib import Path

import pytest

from cluster.settings.workers.this_machine import compute_capability, this_machine, visible_gpus

NVIDIA_SMI = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1f7f0d4c)
  MIG 1g.10gb     Device  0: (UUID: MIG-5b1d7a53)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-9a2c4e8b)
"""


@pytest.mark.parametrize(
    ("chosen", "gpus"),
    [
        (None, 2),
        ("0,1", 2),
        ("1", 1),
        ("0, 1", 2),
        ("GPU-9a2c4e8b", 1),
        ("", 0),
        ("-1", 0),
        ("0,7,1", 1),
        ("0,-1,1", 1),
    ],
)
def test_gpus_are_those_that_cuda_shows(
    chosen: str | None, gpus: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{NVIDIA_SMI}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_gpus() == gpus


def test_a_machine_without_a_driver_has_no_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == 0


@pytest.mark.parametrize(
    ("answer", "capability"), [("9.0", 90), ("12.0", 120), ("No devices were found", None), ("[N/A]", None)]
)
def test_the_compute_capability_is_the_drivers_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str, capability: int | None
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{answer}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert compute_capability() == capability


def test_a_machine_has_its_accelerator_by_rays_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\ncase $1 in -L) echo 'GPU 0: NVIDIA L4 (UUID: GPU-1)';; *) echo 'NVIDIA L4';; esac\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    machine = this_machine()
    assert (machine.gpus, machine.accelerators, machine.labels) == (1, {"L4"}, {"ray.io/accelerator-type": "L4"})
