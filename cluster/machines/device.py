"""The device of a rank as planned, and the advice if a GPU was planned and torch cannot use it."""

from typing import TYPE_CHECKING

from cluster.settings.workers.this_machine import ask_driver
from data_shards.errors import UserError

if TYPE_CHECKING:
    import torch

TO_CPU = "train on CPU cores with --scaling.gpu false"
# NVIDIA's drivers: the oldest that runs programs of a CUDA of that major version, and each version's own.
OLDEST = {12: 525, 13: 580}
OWN = {"12.6": 560, "12.8": 570, "12.9": 575, "13.0": 580}


def rank_device(use_gpu: bool, index: int | None, to_cpu: str = TO_CPU, share: float = 1) -> "torch.device":
    """The GPU with that index, which becomes the current device; or the CPU, even if there are GPUs.

    Args:
        to_cpu: advice for the error message.
        share: fraction of the GPU's memory that this process may use, in (0, 1].

    Raises: UserError when a GPU is planned and torch cannot use one.
    """
    import torch

    if not use_gpu:
        return torch.device("cpu")
    require_cuda(to_cpu)
    device = torch.device("cuda", index or 0)
    torch.cuda.set_device(device)
    if share < 1:
        torch.cuda.set_per_process_memory_fraction(share)
    return device


def require_cuda(to_cpu: str = TO_CPU) -> None:
    """Raises: UserError when torch cannot use a GPU here; it says which driver is missing."""
    import torch

    if not torch.cuda.is_available():
        raise UserError(no_cuda(torch.__version__, torch.version.cuda, driver_version(), to_cpu))


def no_cuda(torch_version: str, cuda: str | None, driver: str | None, to_cpu: str = TO_CPU) -> str:
    """Why torch cannot use a GPU, in one line.

    Args:
        cuda: the version that torch was built for: "13.0".
        driver: the version of NVIDIA's driver: "570.86.15".
    """
    said = f"a worker on a GPU was planned, and torch {torch_version} finds no CUDA device on its machine"
    if cuda is None:
        return f"{said}: it is a build for CPUs; install one for CUDA, or {to_cpu}"
    if driver is None:
        return f"{said}: nvidia-smi finds no driver of NVIDIA there; install driver {_needed(cuda)}, or {to_cpu}"
    oldest = OLDEST.get(int(cuda.partition(".")[0]), 0)
    if int(driver.partition(".")[0]) < oldest:
        return (
            f"{said}: the driver there, {driver}, is too old for its CUDA {cuda}; install driver {_needed(cuda)}, or a build of "
            "torch for an older CUDA"
        )
    return (
        f"{said}, though the driver there, {driver}, is new enough for its CUDA {cuda} ({_needed(cuda)}); "
        "look for CUDA_VISIBLE_DEVICES, and for a container without GPUs"
    )


def driver_version() -> str | None:
    """The version of NVIDIA's driver on this machine, by its own tool; None without one."""
    answer = ask_driver("driver_version")
    return answer if answer[:1].isdigit() else None


def _needed(cuda: str) -> str:
    oldest = OLDEST.get(int(cuda.partition(".")[0]))
    own = OWN.get(cuda, oldest)
    if oldest is None:
        return f"that comes with CUDA {cuda}"
    return f"{oldest} or newer" + (f", better {own}" if own != oldest else "")
