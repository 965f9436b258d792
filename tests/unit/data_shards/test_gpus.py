"""A machine whose GPUs nothing shows: in a container that was started without them, or under a torch for CPUs."""

from pathlib import Path

import pytest
import torch

from cluster.settings.dry_run import _local_device
from data_shards import gpus
from data_shards.gpus import unseen_gpus
from nla_cyclegan.commands.device import choose_device


@pytest.fixture(autouse=True)
def _machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "PROC", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_gpus_that_are_not_visible_are_told_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / "driver/nvidia/gpus" / place).mkdir(parents=True)
    said = "cpu (no CUDA device visible, though this machine has 2 GPUs: a container has to be started with them (docker run"
    assert choose_device("auto") == torch.device("cpu")
    assert f"device {said}" in capsys.readouterr().err
    assert said in _local_device(None)[1]


def test_where_there_are_none_or_they_are_hidden_on_purpose_nothing_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert unseen_gpus() == ""
    (tmp_path / "driver/nvidia/gpus/0000:01:00.0").mkdir(parents=True)
    assert "1 GPU:" in unseen_gpus()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert unseen_gpus() == ""
