"""A rank's device on a machine with a GPU."""

import pytest
import torch

from cluster.machines.device import rank_device

pytestmark = pytest.mark.gpu


def test_a_share_of_a_gpu_is_that_share_of_its_memory() -> None:
    device = rank_device(True, 0, share=0.05)
    try:
        part = torch.cuda.get_device_properties(device).total_memory // 100
        held = torch.empty(3 * part, dtype=torch.uint8, device=device)
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(3 * part, dtype=torch.uint8, device=device)
        del held
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
