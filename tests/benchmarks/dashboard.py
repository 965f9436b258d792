"""What the page of a large sweep costs: python tests/benchmarks/dashboard.py [--trials 1000] [--pictures 12] [--grain 2]

Reading the records, making the page, its size; records and pictures are fabricated.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

import sweep_records
import torch
from timing import header

from tuning import dashboard
from tuning.analysis.results import ranked, read_results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--pictures", type=int, default=12)
    parser.add_argument("--grain", type=int, default=2, help="detail of the pictures; 256: noise")
    args = parser.parse_args()
    print(header(torch.device("cpu")))
    with tempfile.TemporaryDirectory() as folder:
        uri, page = sweep_records.sweep(Path(folder), args.trials, is_timed=True), Path(folder) / "page.html"
        for trial in ranked(read_results(uri).trials)[: args.pictures]:
            for images in range(sweep_records.EVERY, sweep_records.TOTAL + 1, sweep_records.EVERY):
                sweep_records.preview(uri, trial.number, images, grain=args.grain)
        began = time.perf_counter()
        trials = read_results(uri).trials
        read_s = time.perf_counter() - began
        began, began_cpu = time.perf_counter(), time.process_time()
        dashboard.main([uri, "--out", str(page)])
        seconds, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
        size_mb = page.stat().st_size / 1e6
        print(f"{len(trials)} trials: read in {read_s:.2f} s")
        print(f"page in {seconds:.2f} s ({cpu_s:.2f} s of CPU), reading included; {size_mb:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
