"""How training should scale to many GPUs, from measured parts and a stated network: python tests/benchmarks/weak_scaling.py --help

The model. Every GPU takes the same number of image pairs. A step of n GPUs takes

    t(n) = t(1) + max(0, a(n) - hidden) + tail(n) + jitter(n)

a(n): the all-reduce of all gradients, within each machine by the fast links, between machines by ring or tree, whichever is
sooner; DDP does it in buckets while backward goes on, so up to `hidden` = backward's share of t(1) costs nothing. tail: the
last bucket starts when backward has ended. jitter: the slowest of n GPUs sets the pace; of n normal variables with
deviation s the largest is about s * sqrt(2 ln n) above the mean. Efficiency is t(1) / t(n).
"""

import argparse
import math
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch
import torch.distributed as dist
from peers import images, model, our_step
from timing import header

from cluster.settings.costs import measure
from nla_cyclegan import Generator, PatchDiscriminator, StepConfig

BUCKET_BYTES = 25 << 20
# Of a step, the time in backward passes, in which gradients travel: two thirds of the work, less what the first bucket waits for.
BACKWARD = 0.6
GPUS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]


@dataclass(frozen=True)
class Network:
    """A link and a start-up time for each message."""

    bytes_per_s: float
    latency_s: float

    def all_reduce_s(self, members: int, size: float, messages: int = 1) -> float:
        """Ring or tree, whichever is sooner; `size` bytes in so many messages."""
        if members == 1:
            return 0.0
        ring = 2 * (members - 1) * self.latency_s * messages + 2 * (members - 1) / members * size / self.bytes_per_s
        tree = 2 * math.ceil(math.log2(members)) * self.latency_s * messages + 2 * size / self.bytes_per_s
        return min(ring, tree)


@dataclass(frozen=True)
class Machines:
    """Machines of several GPUs each."""

    gpus: int
    inside: Network
    between: Network

    def all_reduce_s(self, gpus: int, size: float, messages: int) -> float:
        inside = min(gpus, self.gpus)
        machines = math.ceil(gpus / self.gpus)
        # Between machines each GPU carries its own part, all at the same time over the machine's one network.
        return self.inside.all_reduce_s(inside, size, messages) + self.between.all_reduce_s(machines, size, messages)


@dataclass(frozen=True)
class Step:
    """One GPU's step: its time, how much it varies, and what it has to tell the others."""

    seconds: float
    deviation_s: float
    gradient_bytes: float

    def with_gpus(self, gpus: int, machines: Machines) -> tuple[float, float, float]:
        """Seconds that all-reduce and waiting for the slowest add to a step, and the all-reduce itself."""
        messages = math.ceil(self.gradient_bytes / BUCKET_BYTES)
        whole = machines.all_reduce_s(gpus, self.gradient_bytes, messages)
        tail = machines.all_reduce_s(gpus, min(BUCKET_BYTES, self.gradient_bytes), 1)
        seen = max(tail, whole - BACKWARD * self.seconds) if gpus > 1 else 0.0
        return seen, self.deviation_s * math.sqrt(2 * math.log(gpus)), whole


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Expected efficiency of weak scaling up to 1,024 GPUs; the step is measured here, or given.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--step-ms", type=float, help="a GPU's step (ms) with this batch, measured elsewhere; none: measured here"
    )
    parser.add_argument(
        "--deviation", type=float, help="standard deviation of a step's time over its mean; none: measured here"
    )
    parser.add_argument("--batch", type=int, default=1, help="image pairs of one GPU's step")
    parser.add_argument("--size", type=int, default=256, help="side of the images in pixels")
    parser.add_argument("--channels", type=int, default=64, help="base channels of all networks")
    parser.add_argument("--blocks", type=int, default=9, help="blocks of a generator; the middle one is non-local")
    parser.add_argument("--repeats", type=int, default=10, help="measured steps")
    parser.add_argument("--gpus-per-machine", type=int, default=8)
    parser.add_argument("--nvlink", type=float, default=300.0, help="GB/s of a GPU to its neighbours, one direction")
    parser.add_argument(
        "--network", type=float, nargs="+", default=[25, 100, 400, 3200], help="Gbit/s of a machine, one direction"
    )
    parser.add_argument("--latency-us", type=float, default=15.0, help="start-up of a message between machines")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(header(device))
    step = the_step(args, device)
    print(
        f"{args.size} px, {args.channels} channels, {args.blocks} blocks, batch {args.batch} a GPU: a step takes {step.seconds * 1e3:.1f} ms "
        f"({'given' if args.step_ms else 'measured here'}), deviation {step.deviation_s / step.seconds:.1%}, {step.gradient_bytes / 1e6:.0f} MB of gradients"
    )
    if dist.is_available():
        print(check_all_reduce([1 << 12, 1 << 20, 1 << 25, 1 << 27]))
    for gbits in args.network:
        between = Network(gbits / 8 * 1e9, args.latency_us * 1e-6)
        machines = Machines(args.gpus_per_machine, Network(args.nvlink * 1e9, 3e-6), between)
        print(table(step, machines, f"{gbits:g} Gbit/s a machine"))


def the_step(args: argparse.Namespace, device: torch.device) -> Step:
    networks = model(args.channels, args.blocks, (args.blocks // 2,))
    generator = measure(lambda: Generator(networks.generator), args.size)
    judge = measure(lambda: PatchDiscriminator(networks.discriminator), args.size)
    gradient_bytes = 2 * (generator.parameters + judge.parameters) * 4
    times = [args.step_ms / 1e3] if args.step_ms else measured(args, device)
    mean = statistics.median(times)
    deviation = (
        args.deviation if args.deviation is not None else statistics.pstdev(times) / mean if len(times) > 1 else 0.02
    )
    return Step(mean, deviation * mean, gradient_bytes)


def measured(args: argparse.Namespace, device: torch.device) -> list[float]:
    """Seconds of steps on this device."""
    a, b = images(args.batch, args.size, device)
    precision = "bf16" if device.type == "cuda" else "fp32"
    take = our_step(model(args.channels, args.blocks, (args.blocks // 2,)), StepConfig(precision=precision), a, b)
    times = []
    for number in range(args.repeats + 2):
        began = time.perf_counter()
        take()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number >= 2:
            times.append(time.perf_counter() - began)
    return times


def table(step: Step, machines: Machines, title: str) -> str:
    lines = [f"\n{title}", "   GPUs  all-reduce ms  seen ms  jitter ms  step ms  efficiency"]
    before = 1.0
    bend = None
    for gpus in GPUS:
        seen, jitter, whole = step.with_gpus(gpus, machines)
        total = step.seconds + seen + jitter
        efficiency = step.seconds / total
        if before - efficiency > 0.05 and bend is None:
            why = "the all-reduce no longer hides behind backward" if seen > jitter else "the slowest GPU sets the pace"
            bend = f"bends at {gpus} GPUs: {why}"
        before = efficiency
        lines.append(
            f"{gpus:7,}  {whole * 1e3:13.2f}  {seen * 1e3:7.2f}  {jitter * 1e3:9.2f}  {total * 1e3:7.1f}  {efficiency:10.1%}"
        )
    return "\n".join([*lines, bend or "no step costs more than 5 points"])


def check_all_reduce(sizes: Iterable[int]) -> str:
    """Two processes here: what an all-reduce costs, and what a latency and a bandwidth fitted to it say."""
    meeting = tempfile.mktemp(prefix="meeting-")
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    ranks = [context.Process(target=_all_reduce, args=(rank, meeting, list(sizes), theirs)) for rank in range(2)]
    for process in ranks:
        process.start()
    seconds = ours.recv()
    for process in ranks:
        process.join()
    sizes = list(sizes)
    latency = seconds[0] / 2
    rate = (sizes[-1] - sizes[1]) / (seconds[-1] - seconds[1])
    fitted = Network(rate, latency)
    cells = ", ".join(
        f"{size / 1e6:.3g} MB {s * 1e3:.2f} ms (model {fitted.all_reduce_s(2, size) * 1e3:.2f})"
        for size, s in zip(sizes, seconds, strict=True)
    )
    return f"all-reduce of 2 processes here, gloo: {cells}; {latency * 1e6:.0f} us a message, {rate / 1e9:.2f} GB/s"


def _all_reduce(rank: int, meeting: str, sizes: list[int], answer: Connection) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    medians = []
    for size in sizes:
        values, times = torch.ones(size // 4), []
        for _ in range(7):
            dist.barrier()
            began = time.perf_counter()
            dist.all_reduce(values)
            times.append(time.perf_counter() - began)
        medians.append(statistics.median(times))
    if rank == 0:
        answer.send(medians)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
