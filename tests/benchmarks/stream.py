"""What the stream costs: a plan of a million samples, memory over epochs, an object store beside a local disk.

    PYTHONPATH=tests/helpers python tests/benchmarks/stream.py DATASET [--rounds 3] [--epochs 20]

DATASET is a packed dataset on local disk. It is copied into an S3 server (rclone, a process on this machine) and read
from there without and with a filled cache, in turn with the local one. What is printed are medians and ratios of turns.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
import tracemalloc
from itertools import islice
from pathlib import Path

import torch
from image_folders import fabricate
from object_stores import Bucket, rclone_store

from data_shards import Dataset, StreamConfig, UnpairedStream, open_dataset
from data_shards.dataset.epoch_plan import EpochPlan
from data_shards.dataset.rows import IndexRows
from data_shards.progress import Progress
from data_shards.storage import RangeReader, list_files, locate, read_file, write_file

BATCH = 16
# Starting the loader processes, and the first windows of all tracks, are paid once a run.
WARM_UP = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", metavar="DATASET")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way to read (default 3)")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of the memory test (default 20)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}\n")
    with tempfile.TemporaryDirectory(prefix="stream-") as folder:
        million_samples(Path(folder) / "million")
        memory(open_dataset(args.dataset), args.epochs)
        object_store(open_dataset(args.dataset), args.rounds, Path(folder))


def million_samples(folder: Path) -> None:
    fabricate(folder, {"trainA": 1_000_000}, samples_per_shard=1_900)
    tracemalloc.start()
    began = time.perf_counter()
    dataset = open_dataset(folder)
    plan = EpochPlan(dataset.split("trainA").extents, seed=0, domain=0, epoch=0, global_batch=BATCH)
    order = plan.order()
    planned = time.perf_counter()
    _, planned_bytes = tracemalloc.get_traced_memory()
    index = IndexRows(RangeReader(locate(dataset.uri)), dataset)
    index.read(int(order[0]), int(order[0]) + 1)
    print("1,000,000 samples")
    print(f"  open and plan a whole epoch    {planned - began:6.2f} s   {planned_bytes / 1e6:6.0f} MB at the most")
    print(f"  first row of the index         {time.perf_counter() - planned:6.2f} s\n")
    tracemalloc.stop()


def memory(dataset: Dataset, epochs: int) -> None:
    """Resident memory of this process and its loader processes, after each epoch."""
    batches = dataset.splits["trainA"].samples // BATCH
    seen = []
    stream = UnpairedStream(dataset, StreamConfig(), seed=0, global_batch=BATCH)
    with stream, Progress("reading", epochs, unit="epochs") as progress:
        for _ in range(epochs):
            for _ in islice(stream, batches):
                pass
            seen.append(resident_mb(os.getpid()))
            progress.advance()
    half = len(seen) // 2
    print(f"memory over {epochs} epochs (this process and two loader processes, proportional set size)")
    print("  " + " ".join(f"{size:.0f}" for size in seen) + " MB")
    print(f"  second half over first half: {statistics.median(seen[half:]) / statistics.median(seen[:half]):.3f}\n")


def resident_mb(pid: int) -> float:
    """Memory of a process and all below it; what they share counts once."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    own = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own / 1e3 + sum(resident_mb(int(child)) for child in children)


def object_store(dataset: Dataset, rounds: int, folder: Path) -> None:
    (folder / "server").mkdir()
    store = rclone_store(folder / "server")
    store.start()
    try:
        assert store.process
        server = Path(f"/proc/{store.process.pid}/stat")
        bucket = store.make_bucket()
        os.environ |= store.environment()
        uri = copy(dataset, bucket)
        rates: dict[str, list[float]] = {"local disk": [], "S3, first epoch": [], "S3, from the cache": []}
        shares: dict[str, list[float]] = {name: [] for name in rates}
        with Progress("reading", 3 * rounds, unit="epochs") as progress:
            for number in range(rounds):
                config = StreamConfig(cache_folder=str(folder / f"cache-{number}"))
                for name, where in zip(rates, (dataset.uri, uri, uri), strict=True):
                    rate, share = epoch(open_dataset(where), config, server)
                    rates[name].append(rate)
                    shares[name].append(share)
                    progress.advance()
    finally:
        store.kill()
    local = rates["local disk"]
    print(
        f"images/s of an epoch after its first {WARM_UP} batches, medians of {rounds} turns; the server takes its CPU time"
    )
    print("from the same cores, which a bucket elsewhere would not: the last column is the rate had it taken none")
    for name, each in rates.items():
        ratio = statistics.median(rate / other for rate, other in zip(each, local, strict=True))
        without = statistics.median(
            rate / other / (1 - share) for rate, other, share in zip(each, local, shares[name], strict=True)
        )
        print(
            f"  {name:20} {statistics.median(each):8,.0f}   {ratio:.2f} x local disk   "
            f"server {statistics.median(shares[name]):4.0%}   {without:.2f} x"
        )


def cpu_s(status: Path) -> float:
    """CPU time that a process has used."""
    user, system = status.read_text().rpartition(") ")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def copy(dataset: Dataset, bucket: Bucket) -> str:
    uri = bucket.uri("data", with_credentials=True)
    source, target = locate(dataset.uri), locate(uri)
    for name in list_files(source):
        write_file(target, name, read_file(source, name) or b"")
    return uri


def epoch(dataset: Dataset, config: StreamConfig, server: Path) -> tuple[float, float]:
    """Images a second, and the server's share of this machine's CPU time."""
    batches = dataset.splits["trainA"].samples // BATCH
    with UnpairedStream(dataset, config, seed=0, global_batch=BATCH) as stream:
        for _ in islice(stream, WARM_UP):
            pass
        began, used = time.perf_counter(), cpu_s(server)
        for _ in islice(stream, batches - WARM_UP):
            pass
        took = time.perf_counter() - began
        share = (cpu_s(server) - used) / took / (os.cpu_count() or 1)
    return 2 * BATCH * (batches - WARM_UP) / took, share


if __name__ == "__main__":
    main()
