"""Which device the networks run on."""

import sys

import torch

from data_shards.cores import usable_cores
from data_shards.errors import UserError


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto` says what it chose and why. Raises: UserError if there is no such device."""
    # torch counts the cores of the machine, also where a container may use few of them.
    torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))
    if name == "auto":
        found = torch.cuda.is_available()
        print("device cuda" if found else "device cpu (no CUDA device visible)", file=sys.stderr)
        return torch.device("cuda" if found else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: not usable here ({str(error).splitlines()[0]}); try auto or cpu") from error
    return device
