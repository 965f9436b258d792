"""The cores and GPUs of this machine, for a local Ray."""

import os
import re
import subprocess
from itertools import takewhile

from cluster.settings.workers.capacity import Machine
from cluster.settings.workers.selector import ACCELERATOR_LABEL, accelerator_named
from data_shards.cores import usable_cores

NVIDIA_SMI_S = 30.0


def this_machine() -> Machine:
    gpus = visible_gpus()
    name = accelerator_named(ask_driver("name")) if gpus else None
    return Machine(
        usable_cores(),
        gpus,
        labels={ACCELERATOR_LABEL: name} if name else {},
        accelerators=frozenset([name] if name else []),
    )


def visible_gpus() -> int:
    """GPUs that CUDA shows to this process, counted by the driver's own tool: importing torch takes seconds."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=NVIDIA_SMI_S).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    installed = sum(line.startswith("GPU ") for line in listed.splitlines())
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return installed
    # A number or a UUID each. CUDA ignores everything from the first one on that does not exist, such as -1.
    names = (name.strip() for name in chosen.split(","))
    valid = takewhile(lambda name: int(name) < installed if name.isdigit() else name[:1].isalpha(), names)
    return min(len(list(valid)), installed)


def gpu_memory_bytes() -> int | None:
    """Memory of this machine's first GPU; None without a GPU."""
    answer = ask_driver("memory.total")
    return int(answer) * 2**20 if answer.isdigit() else None


def compute_capability() -> int | None:
    """Of this machine's first GPU, 10 times the major number plus the minor; None without a GPU."""
    answer = ask_driver("compute_cap")
    return int(answer.replace(".", "")) if re.fullmatch(r"\d+\.\d", answer) else None


def ask_driver(what: str) -> str:
    """A property of this machine's first GPU; empty without a GPU."""
    query = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits", "--id=0"]
    try:
        return (
            subprocess.run(query, capture_output=True, text=True, timeout=NVIDIA_SMI_S)
            .stdout.strip()
            .partition("\n")[0]
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
