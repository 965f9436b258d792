"""What the benchmarks of whole runs and sweeps share: the project's own commands, and a synthetic dataset."""

import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def call(package: str, *arguments: Any) -> None:
    """One of the project's commands, shown."""
    print(f"\n$ python -m {package} {' '.join(map(str, arguments))}", flush=True)
    subprocess.run([sys.executable, "-m", package, *map(str, arguments)], cwd=ROOT, check=True)


def synthetic_dataset(folder: Path, *, size: int, train: int, test: int | None = None) -> None:
    """Draw `images` of that many pixels a side and pack them as `shards`, if they are not there."""
    test = test or max(16, train * 4 // 25)
    if not (folder / "shards" / "manifest.json").exists():
        call("data_shards", "synth", folder / "images", "--size", size, "--train", train, "--test", test)
        call("data_shards", "pack", folder / "images", folder / "shards")
