"""The paper's claims, on the paper's network: CycleGAN and NLA-CycleGAN, Adam and Nadam, over seeds, with verdicts.

    python tests/benchmarks/evidence.py STATE --size cpu                     # 64 px, 16 channels, 900 pairs a run: hours on two cores
    python tests/benchmarks/evidence.py STATE --size brief --data SHARDS     # 128 px, 64 channels, 1,500 pairs a run: minutes on a GPU
    python tests/benchmarks/evidence.py STATE --size gpu --data SHARDS       # the same, 40,000 pairs a run

Instance norm, logits not scaled, transposed convolutions, 9 blocks, one pair a step. Each optimizer has its best rate of three,
chosen on a seed outside the test; a pilot on such seeds says how many the test needs (evidence_plan.py). The same command goes on where it was
stopped, and writes what is known to STATE: tables.md and pictures. STATE is a folder outside the repository; what it misses is
listed as open. SHARDS is a dataset packed at the size that --size names; without one, landscapes are drawn.
"""

import argparse
import hashlib
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from commands import call
from evidence_cells import SIZES, Size
from evidence_plan import Plan, open_runs
from evidence_report import write_report
from evidence_run import Images
from evidence_state import State
from evidence_turns import in_processes, in_turns
from timing import header

from data_shards.dataset.manifest import MANIFEST
from data_shards.storage import locate, read_file
from nla_cyclegan.metrics.score import PATCHES, definition


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("state", type=Path, metavar="STATE", help="folder for what is known, outside the repository")
    parser.add_argument("--size", choices=list(SIZES), default="cpu", help="of networks, images and runs (default cpu)")
    parser.add_argument("--data", metavar="SHARDS", help="a packed dataset, instead of drawn landscapes")
    parser.add_argument("--device", default="auto", help="cuda, cuda:1 or cpu (default: cpu with --size cpu or tiny)")
    parser.add_argument(
        "--precision", choices=["bf16", "fp32"], help="default bf16, which is slow on CPUs without AMX or AVX512-BF16"
    )
    parser.add_argument("--minutes", type=float, help="start no run that would end after so many")
    parser.add_argument("--runs", type=int, help="start no more than so many, those of all stages together")
    parser.add_argument("--together", type=int, help="runs at a time: processes of a thread each, streams on a GPU")
    parser.add_argument(
        "--most-seeds", type=int, default=20, help="of the test, whatever the pilot asks for (default 20)"
    )
    parser.add_argument("--descriptive-seeds", type=int, default=3, help="of each cell without a claim (default 3)")
    parser.add_argument("--report", action="store_true", help="run nothing: write what is known")
    args = parser.parse_args()
    folder, size = args.state.absolute(), SIZES[args.size]
    size = replace(size, precision=args.precision or size.precision)
    device = torch.device(("cpu" if args.size in ("tiny", "cpu") else "cuda") if args.device == "auto" else args.device)
    print(header(device))
    data = str(Path(args.data).absolute()) if args.data else drawn(folder, size)
    state = State(folder, about(args.size, size, data))
    seeds = {"most_seeds": args.most_seeds, "descriptive_seeds": args.descriptive_seeds}
    if not args.report:
        limits = Limits(state, time.monotonic() + 60 * (args.minutes or 1e9), args.runs)
        run_all(state, size, data, device, args.together or size.together, limits, seeds)
    plan = Plan.of(state, **seeds)
    print("\n" + write_report(state, plan, size, Images(data, size, torch.device("cpu"))))
    print("\n".join(open_runs(plan, state)) or "nothing is open")


def drawn(folder: Path, size: Size) -> str:
    """A dataset that the program draws, packed."""
    shards = folder / "shards"
    if not (shards / "manifest.json").exists():
        test = max(16, size.samples * 4 // 25)
        call("data_shards", "synth", folder / "images", "--size", size.load, "--train", size.samples, "--test", test)
        call("data_shards", "pack", folder / "images", shards)
    return str(shards)


def about(name: str, size: Size, data: str) -> dict[str, object]:
    """What all runs of a folder have in common: figures of others do not compare."""
    manifest = read_file(locate(data), MANIFEST)
    assert manifest is not None, data
    lasting = {field: value for field, value in asdict(size).items() if field not in ("together", "samples")}
    return {"size": name, **lasting, "data": hashlib.sha256(manifest).hexdigest(), "score": definition(PATCHES)}


def run_all(
    state: State, size: Size, data: str, device: torch.device, together: int, limits: "Limits", seeds: dict[str, int]
) -> None:
    """Stage by stage, until all is done or a limit is reached."""
    images: Images | None = None
    while True:
        stage, missing = Plan.of(state, **seeds).next(state)
        if not missing:
            return
        print(f"{stage}: {len(missing)} runs to make", flush=True)
        if device.type == "cuda" or together == 1:
            images = images or Images(data, size, device)
            ended = in_turns(missing, images, together, limits.until, limits.another)
        else:
            ended = in_processes(missing, size, data, together, limits.another)
        count = 0
        for run, painted in ended:
            count += 1
            state.add(run, painted if run.seed == 0 else None)
            print(f"{run.key}: {run.value:.3f} after {run.seconds:.0f} s", flush=True)
        if count < len(missing):
            print(f"stopped: {limits.reached}", flush=True)
            return


class Limits:
    """Of the time and of the number of runs that one call begins.

    Args:
        until: by time.monotonic().
        most: None: any number.
    """

    def __init__(self, state: State, until: float, most: int | None) -> None:
        self.state, self.until, self.most = state, until, most
        self.begun, self.reached = 0, "the time is over"

    def another(self) -> bool:
        """Count another run in, if it may begin: one that takes as long as the longest so far would end in time."""
        longest = max((run.seconds for run in self.state.done.values()), default=0.0)
        if self.most is not None and self.begun >= self.most:
            self.reached = f"{self.begun} runs, as many as --runs allows"
        elif time.monotonic() + longest < self.until:
            self.begun += 1
            return True
        return False


if __name__ == "__main__":
    main()
