"""GPUs that are there, and that this process does not see."""

import os

from data_shards.control_groups import PROC
from data_shards.errors import counted


def unseen_gpus() -> str:
    """The end of a sentence that says that no GPU is visible: what hides those that the driver of this machine has.

    Empty where it has none, as far as /proc tells, or CUDA_VISIBLE_DEVICES chooses.
    """
    count = len(list((PROC / "driver/nvidia/gpus").glob("*")))
    if not count or "CUDA_VISIBLE_DEVICES" in os.environ:
        return ""
    return (
        f", though this machine has {counted(count, 'GPU')}: a container has to be started with them (docker run --gpus all), and torch "
        "has to be a build for CUDA"
    )
