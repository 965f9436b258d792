"""How much memory `evaluate` takes, and how fast it is, by the number of images and by their size.

    python tests/benchmarks/evaluate_memory.py FOLDER [--sizes 256] [--images 500 2000]

A few drawn landscapes, photographed and painted, are shifted about until there are so many different ones: inputs, their true
paintings in the place of translations, and paintings of other scenes as the real ones. `evaluate` measures each number and size in a
process of its own. FOLDER keeps the images.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from commands import call, measured_call
from PIL import Image
from report_tables import table
from timing import header

SETS = ("testA", "testB", "truthB2A")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256], help="sides in pixels (default 256)")
    parser.add_argument("--images", type=int, nargs="+", default=[500, 2000], help="of each set (default 500 2000)")
    parser.add_argument("--drawn", type=int, default=32, help="scenes of each set that are drawn (default 32)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of torch (default: all cores)")
    args = parser.parse_args()
    print(header(torch.device("cpu")))
    rows = []
    for size in args.sizes:
        for count in args.images:
            folder = shifted(drawn(args.folder.absolute(), size, args.drawn), count)
            used = measured_call(
                folder / "evaluate.log", "nla_cyclegan", "evaluate", "--translations", folder / "truthB2A", "--inputs", folder / "testB",
                "--real", folder / "testA", "--inception", "none", threads=args.threads,
            )  # fmt: skip
            rate = len(SETS) * count / used.seconds
            rows.append([
                f"{size}", f"{count:,}", f"{used.peak_bytes / 1e6:,.0f}", f"{used.seconds:.1f}", f"{used.cpu_seconds:.1f}", f"{rate:.1f}",
            ])  # fmt: skip
    print("\n" + table(["px", "images of each of three sets", "peak MB", "s", "CPU s", "images/s"], rows))


def drawn(folder: Path, size: int, count: int) -> Path:
    """The folder of the drawn images."""
    found = folder / f"{size}-drawn-{count}"
    if not found.exists():
        call("data_shards", "synth", found, "--size", size, "--train", 1, "--test", count)
    return found


def shifted(images: Path, count: int) -> Path:
    """A folder of so many images of each set: the drawn ones, and these shifted sideways, an input and its truth alike."""
    found = images.with_name(f"{images.name}-{count}")
    for name in SETS:
        (found / name).mkdir(parents=True, exist_ok=True)
        files = sorted((images / name).iterdir())
        for index in range(count):
            target = found / name / f"{index:06d}.jpg"
            if target.exists():
                continue
            pixels = np.asarray(Image.open(files[index % len(files)]))
            again, side = index // len(files), pixels.shape[1]
            Image.fromarray(np.roll(pixels, again * 29 % side, axis=1)).save(target, quality=95, subsampling=0)
    return found


if __name__ == "__main__":
    main()
