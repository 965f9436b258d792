"""The device that the networks run on, and errors of its memory."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from data_shards.cores import usable_cores
from data_shards.errors import UserError
from data_shards.gpus import unseen_gpus

# Messages of CUDA's libraries about memory that torch raises as another RuntimeError.
OF_THE_DEVICE = re.compile("CUDA error: out of memory|CU(DNN|BLAS)_STATUS_ALLOC_FAILED")


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto` prints its choice and the reason. Raises: UserError if there is no such device."""
    # torch counts all cores of the machine, also where a container may use few of them.
    torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))
    if name == "auto":
        found = torch.cuda.is_available()
        print("device cuda" if found else f"device cpu (no CUDA device visible{unseen_gpus()})", file=sys.stderr)
        return torch.device("cuda" if found else "cpu")
    try:
        device = torch.device(name)
        # And back: a meta device computes nothing.
        torch.empty(0, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: not usable here ({first_sentence(error)}); try auto or cpu") from error
    return device


def out_of_memory(error: BaseException) -> Literal["device", "machine"] | None:
    """Whose memory an error says has run out; None for other errors."""
    if isinstance(error, torch.OutOfMemoryError) or OF_THE_DEVICE.search(str(error)):
        return "device"
    # The second test is for torch's RuntimeError on a CPU.
    return "machine" if isinstance(error, MemoryError) or "alloc" in str(error).lower() else None


@contextmanager
def memory_explained(advice: str) -> Iterator[None]:
    """An out-of-memory error inside becomes a UserError.

    Args:
        advice: what the user can do.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        whose = out_of_memory(error)
        if whose is None:
            raise
        raise UserError(f"the {whose} is out of memory ({first_sentence(error)}); {advice}") from error


def first_sentence(error: BaseException) -> str:
    return str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
