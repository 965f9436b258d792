"""The memory that records name is that of the device a run trains on."""

import pytest
import torch

from cluster.records.observe import memory_bytes


def test_a_run_on_the_cpu_of_a_machine_with_a_gpu_names_the_cpus_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device=None: 7)
    assert memory_bytes(torch.device("cpu")) > 1e7
    assert memory_bytes(torch.device("cuda", 0)) == 7
