import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed; it exists for Linux alone")

from triton_mode import import_anew

import_anew(interpret=True)


@pytest.fixture(autouse=True)
def _unwritten_is_nan():
    """What a kernel leaves unwritten is NaN: torch fills new tensors with it in its deterministic mode."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
