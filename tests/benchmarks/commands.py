"""What the benchmarks of whole runs and sweeps share: the project's own commands, and a synthetic dataset."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def call(package: str, *arguments: Any, threads: int | None = None) -> None:
    """One of the project's commands, shown; with so many threads of computation."""
    print(f"\n$ python -m {package} {' '.join(map(str, arguments))}", flush=True)
    environment = os.environ | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
    subprocess.run([sys.executable, "-m", package, *map(str, arguments)], cwd=ROOT, check=True, env=environment)


def synthetic_dataset(folder: Path, *, size: int, train: int, test: int) -> None:
    """Draw `images` of that many pixels a side and pack them as `shards`, if they are not there."""
    if not (folder / "shards" / "manifest.json").exists():
        call("data_shards", "synth", folder / "images", "--size", size, "--train", train, "--test", test)
        call("data_shards", "pack", folder / "images", folder / "shards")
