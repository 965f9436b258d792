"""Which settings make the better demo? Runs of each configuration, over seeds, on the demo's drawn landscapes.

    python tests/benchmarks/demo_settings.py FOLDER tests/benchmarks/configs/demo_before.yaml cluster/configs/demo.yaml

Every configuration trains with every seed, in turns and two at a time, a thread each (`--together 1`: one alone with all cores);
then `evaluate` compares its translations of held-out images with real images and with the true ones, which are known. Options of
`cluster train` at the end hold for all runs. FOLDER keeps what is done: the same command goes on with the rest. Two cores take some
five minutes for a seed of two configurations of the demo's length.
"""

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from commands import measured_call, synthetic_dataset
from paired import Paired
from report_tables import spread, table
from timing import header

# Of the translations of photos, whose truth is known; the score is the mean of both directions.
FIGURES = {
    "score": (".3f", lambda found: found["score"]),
    "Lab": (".2f", lambda found: found["B2A"]["translations"]["lab"]),
    "SWD": (".1f", lambda found: found["B2A"]["translations"]["swd"]),
    "PSNR to the truth, dB": (".2f", lambda found: found["B2A"]["translations"]["psnr_truth"]),
    "SSIM to the truth": (".3f", lambda found: found["B2A"]["translations"]["ssim_truth"]),
    "s": (".0f", lambda found: found["seconds"]),
    "CPU s": (".0f", lambda found: found["cpu_seconds"]),
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A configuration with a seed, in a folder of its own."""

    folder: Path
    config: Path
    seed: int
    threads: int
    options: Sequence[str]
    """Of `cluster train`, beside those of the configuration."""

    @property
    def name(self) -> str:
        return f"{self.config.stem}-{self.seed}"

    @property
    def figures(self) -> dict[str, Any] | None:
        """What was measured; None of a run that is not done, or was made with other settings."""
        file = self.folder / f"{self.name}.json"
        found = json.loads(file.read_text()) if file.exists() else {}
        return found if found.get("settings") == self.settings else None

    @property
    def settings(self) -> list[str]:
        return [self.config.read_text(), *self.options]

    def make(self) -> None:
        """Train and evaluate, if that is not done; a run that was cut off begins anew, so that its time is that of the whole."""
        if self.figures:
            return
        runs, images, measured = self.folder / "runs", self.folder / "images", self.folder / f"{self.name}.measured"
        shutil.rmtree(runs / self.name, ignore_errors=True)
        log = self.folder / f"{self.name}.log"
        used = measured_call(
            log, "cluster", "train", "--config", self.config, "--local", "--scaling.workers=1", f"--name={self.name}", f"--seed={self.seed}",
            f"--storage={runs}", f"--data.uri={self.folder / 'shards'}", *self.options, threads=self.threads,
        )  # fmt: skip
        measured_call(
            log, "nla_cyclegan", "evaluate", "--weights", runs / self.name, "--direction", "both", "--inputs", images / "testB",
            "--real", images / "testA", "--truth", images / "truthB2A", "--inception", "none", "--json", measured, threads=self.threads,
        )  # fmt: skip
        found = json.loads(measured.read_text()) | {
            "seconds": used.seconds,
            "cpu_seconds": used.cpu_seconds,
            "settings": self.settings,
        }
        measured.write_text(json.dumps(found))
        measured.rename(self.folder / f"{self.name}.json")
        print(
            f"{self.name}: {', '.join(f'{name} {value(found):{form}}' for name, (form, value) in FIGURES.items())}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="for the dataset, the runs and their figures")
    parser.add_argument(
        "configs", type=Path, nargs="+", metavar="CONFIG", help="the others are compared with the first one"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="that no sweep used (default 1 2 3)")
    parser.add_argument("--size", type=int, default=128, help="side of the drawn images in pixels (default 128)")
    parser.add_argument("--train", type=int, default=400, help="paintings and photographs each (default 400)")
    parser.add_argument("--test", type=int, default=24, help="held out of each (default 24)")
    parser.add_argument("--together", type=int, default=2, help="runs at a time (default 2)")
    args, options = parser.parse_known_args()
    if len({config.stem for config in args.configs}) < len(args.configs):
        parser.error("two configurations have one name, and so would their runs")
    print(header(torch.device("cpu")))
    folder = args.folder.absolute()
    synthetic_dataset(folder, size=args.size, train=args.train, test=args.test)
    threads = max(1, (os.cpu_count() or 1) // args.together)
    runs = [Run(folder, config.absolute(), seed, threads, options) for seed in args.seeds for config in args.configs]
    with ThreadPoolExecutor(args.together) as pool:
        list(pool.map(Run.make, runs))
    print("\n" + report(runs))


def report(runs: Sequence[Run]) -> str:
    """A row for each configuration, means and standard deviations over the seeds; of all but the first what differs, seed by seed."""
    by_config: dict[Path, list[dict[str, Any]]] = {}
    for run in runs:
        assert run.figures
        by_config.setdefault(run.config, []).append(run.figures)
    first, *others = by_config
    rows = [
        [config.stem, str(len(found)), *(spread([value(each) for each in found], form) for form, value in FIGURES.values())]
        for config, found in by_config.items()
    ]  # fmt: skip
    for config in others:
        row = []
        for form, value in FIGURES.values():
            each = zip(by_config[config], by_config[first], strict=True)
            paired = Paired(tuple(value(one) - value(other) for one, other in each))
            row.append(f"{paired.mean:+{form}}" + (f" ± {paired.margin():{form}}" if paired.n > 1 else ""))
        rows.append([f"{config.stem} less {first.stem}, ± 95 %", str(paired.n), *row])
    return table(["", "seeds", *FIGURES], rows)


if __name__ == "__main__":
    main()
