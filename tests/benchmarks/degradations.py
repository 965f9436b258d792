"""What each figure sees: true paintings and photographs, made worse in one way at a time, scored as translations.

    python tests/benchmarks/degradations.py [--sizes 64 128] [--images 8 32] [--seeds 0 1 2] [--inception FILE]
    python tests/benchmarks/degradations.py --sizes 256 --images 64 --seeds 0 --only "copy of the input" grey "pixels shuffled"
    python tests/benchmarks/degradations.py --real data/monet2photo --sizes 128 --images 64

Of drawn landscapes the true translations are known, in both directions. Of real images they are not: there the other half of
the held-out images stands for them, at the content of other scenes. Two cores take about 2 s for each set of 32 images of 128 px.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from timing import header

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from degraded import CHANGES, MARGIN, drawn_sets, measure, real_sets

from nla_cyclegan.metrics.inception import Inception
from nla_cyclegan.metrics.scores import Scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--images", type=int, nargs="+", default=[8, 32], help="of each domain")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--real", type=Path, metavar="DIR", help="testA and testB of real images instead of drawn ones")
    parser.add_argument(
        "--only", nargs="+", choices=list(CHANGES), default=list(CHANGES), metavar="CHANGE", help=", ".join(CHANGES)
    )
    parser.add_argument("--inception", type=Path, metavar="FILE", help="adds KID, and the score with it")
    args = parser.parse_args()
    print(header(torch.device("cpu")))
    network = Inception(args.inception) if args.inception else None
    for size in args.sizes:
        for count in args.images:
            found: dict[str, list[Row]] = {}
            for seed in args.seeds:
                directions = real_sets(args.real, size, count, seed) if args.real else drawn_sets(size, count, seed)
                for name in dict.fromkeys([next(iter(CHANGES)), *args.only]):
                    rows = [measure(each, CHANGES[name], network) for each in directions]
                    found.setdefault(name, []).append(measured(rows))
            print(f"\n{count} images of {size} px, {len(args.seeds)} seeds, means of both directions\n")
            print(table(found), flush=True)


@dataclass(frozen=True)
class Row:
    """Means over the directions."""

    score: float
    swd: float
    lab: float
    ssim: float
    scene: float
    kid: float


def measured(directions: Sequence[tuple[float, Scores]]) -> Row:
    def mean(value: Callable[[Scores], float]) -> float:
        return statistics.fmean(value(scores) for _, scores in directions)

    return Row(
        statistics.fmean(score for score, _ in directions),
        mean(lambda each: each.swd.mean),
        mean(lambda each: each.lab),
        mean(lambda each: each.ssim_content),
        mean(lambda each: each.scene),
        mean(lambda each: 1e3 * each.kid.value if each.kid else math.nan),
    )


def table(found: dict[str, list[Row]]) -> str:
    """A row a change: means over the seeds, and by how much the truth is better at least, over the seeds."""
    lines = [
        "| translations | score | truth is better by at least | SWD x 10^3 | Lab | SSIM | SSIM of the scene | KID x 10^3 |",
        "|---" * 8 + "|",
    ]
    truth = next(iter(found.values()))
    for name, rows in found.items():
        gap = min(row.score - best.score for row, best in zip(rows, truth, strict=True))
        mark = "" if rows is truth or gap >= MARGIN else " *"
        kid = statistics.fmean(row.kid for row in rows)
        lines.append(
            f"| {name} | {statistics.fmean(row.score for row in rows):.3f} | {'' if rows is truth else f'{gap:+.3f}{mark}'} "
            f"| {statistics.fmean(row.swd for row in rows):.1f} | {statistics.fmean(row.lab for row in rows):.2f} "
            f"| {statistics.fmean(row.ssim for row in rows):.3f} | {statistics.fmean(row.scene for row in rows):.3f} | {'-' if math.isnan(kid) else f'{kid:.1f}'} |"
        )
    return "\n".join([*lines, "", f"* by less than {MARGIN}"])


if __name__ == "__main__":
    main()
