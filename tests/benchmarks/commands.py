"""What the benchmarks of whole runs and sweeps share: the project's own commands, and a synthetic dataset."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def call(package: str, *arguments: Any) -> None:
    """One of the project's commands, shown."""
    print(f"\n$ python -m {package} {' '.join(map(str, arguments))}", flush=True)
    subprocess.run([sys.executable, "-m", package, *map(str, arguments)], cwd=ROOT, check=True)


@dataclass(frozen=True)
class Used:
    """What a command took: seconds by the clock and of all cores, and most bytes of memory at a time."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def measured_call(log: Path, package: str, *arguments: Any, threads: int) -> Used:
    """One of the project's commands, its output added to a file. Raises: SystemExit where it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    began = time.monotonic()
    with log.open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", package, *map(str, arguments)],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=output,
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"python -m {package} {arguments[0]} failed, see {log}")
    # Linux counts in units of 1,024 bytes, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return Used(time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss * unit)


def synthetic_dataset(folder: Path, *, size: int, train: int, test: int | None = None) -> None:
    """Draw `images` of that many pixels a side and pack them as `shards`, if they are not there."""
    test = test or max(16, train * 4 // 25)
    if not (folder / "shards" / "manifest.json").exists():
        call("data_shards", "synth", folder / "images", "--size", size, "--train", train, "--test", test)
        call("data_shards", "pack", folder / "images", folder / "shards")
