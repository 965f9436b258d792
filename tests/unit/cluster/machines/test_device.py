"""Which device a rank computes on, and what is said where it cannot."""

from pathlib import Path

import pytest
import torch

from cluster.group.rendezvous import join_group
from cluster.machines.device import driver_version, no_cuda, rank_device, require_cuda
from data_shards.errors import UserError


@pytest.mark.parametrize("visible", [False, True])
def test_a_rank_on_the_cpu_stays_there_on_a_machine_with_gpus(visible: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: visible)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: pytest.fail("it was planned on the CPU"))
    assert rank_device(False, 3) == torch.device("cpu")


def test_a_rank_on_a_gpu_makes_it_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert rank_device(True, 3) == torch.device("cuda", 3)
    assert rank_device(True, None) == torch.device("cuda", 0)
    assert current == [torch.device("cuda", 3), torch.device("cuda", 0)]


def test_a_rank_takes_no_more_of_a_shared_gpus_memory_than_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", shares.append)
    for share in (1, 0.25):
        rank_device(True, 0, share=share)
    rank_device(False, None, share=0.25)
    assert shares == [0.25]


@pytest.mark.parametrize(
    ("cuda", "driver", "said"),
    [
        ("13.0", "570.86.15", "the driver there, 570.86.15, is too old for its CUDA 13.0; install driver 580 or newer"),
        ("12.6", "520.61", "is too old for its CUDA 12.6; install driver 525 or newer, better 560, or a build"),
        ("12.8", "470.1", "install driver 525 or newer, better 570"),
        ("12.9", "470.1", "install driver 525 or newer, better 575"),
        ("13.0", "580.65.06", "is new enough for its CUDA 13.0 (580 or newer); look for CUDA_VISIBLE_DEVICES"),
        ("13.0", None, "nvidia-smi finds no driver of NVIDIA there; install driver 580 or newer"),
        (None, "580.1", "it is a build for CPUs; install one for CUDA, or train on CPU cores with --scaling.gpu false"),
        ("14.1", "580.1", "new enough for its CUDA 14.1 (that comes with CUDA 14.1)"),
    ],
)
def test_a_gpu_that_torch_cannot_use(cuda: str | None, driver: str | None, said: str) -> None:
    line = no_cuda("2.15.0", cuda, driver)
    assert said in line
    assert line.startswith("a worker on a GPU was planned, and torch 2.15.0 finds no CUDA device")
    assert "\n" not in line


def test_it_is_an_error_that_only_the_user_can_fix_before_nccl_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for fails in (require_cuda, lambda: rank_device(True, 0), lambda: join_group(0, "127.0.0.1", 1, 1, "nccl", 5)):
        with pytest.raises(UserError, match="finds no CUDA device") as error:
            fails()
        assert not error.value.retryable


@pytest.mark.parametrize(
    ("answer", "version"), [("570.86.15\n570.86.15", "570.86.15"), ("No devices were found", None)]
)
def test_the_version_of_the_driver_is_its_own_answer(
    answer: str, version: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert driver_version() == version
    program.unlink()
    assert driver_version() is None
