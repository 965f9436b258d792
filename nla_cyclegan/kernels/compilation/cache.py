"""Compiles a step's kernels in the background, once on each machine, while Ray, loaders and checkpoints start. Imports neither torch nor Triton.

The first process that asks takes a lock, starts several processes that compile a part each (`ahead`), and leaves a marker file; others
wait for it. Kernels are kept in Triton's cache (TRITON_CACHE_DIR, or ~/.triton/cache), keyed by source, Triton and GPU; the marker beside
them is keyed by these and the step. Nothing is ever read from a run's storage.
"""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from nla_cyclegan.model.config import ModelConfig

MOST_PROCESSES = 12
"""A step has about 60 kernels, each half a second to compile."""


def start_compiling(
    model: ModelConfig, precision: str, *, pairs: int, size: int, capability: int
) -> subprocess.Popen[bytes]:
    """Start to compile, and return at once. The step compiles at its first call what fails to compile here.

    Args:
        precision: of the step.
        pairs: image pairs in one pass of the networks.
        size: side of the images in pixels.
        capability: of the GPU, 10 times its major number plus its minor, as in 90.

    Returns: the process, which ends when everything is compiled or has failed to compile.
    """
    wanted = json.dumps([model.model_dump(mode="json"), precision, pairs, size, capability])
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    return _start(environment, __name__, wanted)


def mark_of(wanted: str) -> Path:
    """The marker file that exists once these kernels have been compiled on this machine."""
    # As Triton finds it, also for a user without a home.
    cache = Path(os.environ.get("TRITON_CACHE_DIR", os.path.expanduser("~/.triton/cache")))
    sources = sorted(Path(__file__).parents[1].rglob("*.py"))
    content = b"".join([wanted.encode(), version("triton").encode(), *(source.read_bytes() for source in sources)])
    return cache / f"nla-cyclegan-{hashlib.sha256(content).hexdigest()[:24]}"


def _start(environment: dict[str, str], module: str, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _main(wanted: str) -> None:
    mark = mark_of(wanted)
    mark.parent.mkdir(parents=True, exist_ok=True)
    with mark.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if mark.exists():
            return
        count = str(max(1, min(MOST_PROCESSES, len(os.sched_getaffinity(0)) - 1)))
        parts = [
            _start(dict(os.environ), "nla_cyclegan.kernels.compilation.ahead", wanted, str(i), count)
            for i in range(int(count))
        ]
        failed = [part for part in parts if part.wait()]
        if not failed:
            mark.touch()


if __name__ == "__main__":
    _main(*sys.argv[1:])
