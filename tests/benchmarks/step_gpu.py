"""The training step on a GPU: python tests/benchmarks/step_gpu.py --help (and --tiny to try it anywhere)"""

import argparse
import math
from collections.abc import Callable

import torch
from images_on_disk import folder_batches
from peers import LR, images, model, our_step, textbook_step
from timing import alternate, header, median, table, warm_up
from torch import Tensor

from cluster.settings.config import RunConfig
from cluster.settings.costs import Costs
from nla_cyclegan import LossConfig, ModelConfig, OptimizerConfig, StepConfig, TrainingStep

FAST = {"precision": "bf16", "channels_last": True}
MODES: dict[str, dict] = {
    "eager": {"kernels": "plain", "graph": False},
    "plain graph": {"kernels": "plain"},
    "fused graph": {},
}


def throughput(networks: ModelConfig, args: argparse.Namespace, device: torch.device) -> None:
    """Image pairs a second, memory and part of the GPU's FLOP limit, over batches and sizes."""
    print("\nbf16 step        size  batch  pairs/s  peak GiB  % of FLOP limit")
    for size in args.sizes:
        flops = Costs.of(_run(networks, size)).flops_per_pair
        for batch in args.batches:
            for mode in args.modes:
                config = FAST | MODES[mode]
                pairs, gib = _measure(networks, size, batch, config, args.repeats, device)
                limit = f"{100 * pairs * flops / (args.tflops * 1e12):15.1f}"
                print(f"{mode:16} {size:4}  {batch:5}  {pairs:7.1f}  {gib:8.2f}  {limit}", flush=True)


def _measure(
    networks: ModelConfig, size: int, batch: int, config: dict, repeats: int, device: torch.device
) -> tuple[float, float]:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    step = our_step(networks, StepConfig(**config), *images(batch, size, device))
    for _ in range(3):
        step()
    seconds = median(alternate({"step": step}, repeats, device)["step"])
    gib = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else math.nan
    return batch / seconds, gib


def _run(networks: ModelConfig, size: int) -> RunConfig:
    return RunConfig.model_validate({"data": {"uri": "-", "crop_size": size, "load_size": size}, "model": networks})


def against_peers(networks: ModelConfig, size: int, batch: int, args: argparse.Namespace, device: torch.device) -> None:
    """Ours, in each mode, in turns with the textbook step in fp32 (TF32 on) and bf16."""
    a, b = images(batch, size, device)
    print(f"\nagainst the textbook step: {size} px, batch {batch}", flush=True)
    steps: dict[str, Callable[[], None]] = {
        "textbook tf32": textbook_step(networks, a, b, bf16=False),
        "textbook bf16": textbook_step(networks, a, b, bf16=True),
    }
    for mode in args.modes:
        steps[f"step bf16 {mode}"] = our_step(networks, StepConfig(**FAST, **MODES[mode]), a, b)
    warm_up(steps, 4, device)
    timings = alternate(steps, args.repeats, device)
    print(table(timings, against=["textbook tf32", "textbook bf16"]))
    pairs = ", ".join(f"{name} {batch / median(each):.1f}" for name, each in timings.items())
    print(f"image pairs a second: {pairs}")


def stays_finite(networks: ModelConfig, args: argparse.Namespace, device: torch.device) -> None:
    """Many bf16 steps, on real images where there are some; one look at the end, since nothing moves after a NaN."""
    size, batch = args.sizes[0], args.batches[-1]
    step = TrainingStep(
        networks, LossConfig(), OptimizerConfig(), StepConfig(**FAST), seed=0, global_batch=batch, device=device
    )
    source = folder_batches(args.images, size, batch) if args.images else None
    losses: dict[str, Tensor] = {}
    for number in range(args.steps):
        a, b = next(source) if source else images(batch, size, device, number)
        losses = step(a, b, images_seen=number * batch, lr=LR)
    told = ", ".join(f"{name} {value.item():.3f}" for name, value in losses.items())
    what = args.images or "noise"
    print(
        f"\n{args.steps} bf16 steps of {batch} pairs of {size} px ({what}): {'finite' if step.finite else 'NOT FINITE'}"
    )
    print(f"last losses: {told}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Image pairs a second over batches and sizes, memory, part of the FLOP limit; speed against the textbook "
        "step in one run; NaN check over many bf16 steps.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu to try the script")
    parser.add_argument("--tiny", action="store_true", help="4 channels, 3 blocks, 32 px: to try the script on a CPU")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512], help="sides of the images in pixels")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16, 32], help="image pairs of a step")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), help="how our step is run")
    parser.add_argument(
        "--tflops", type=float, default=989.0, help="dense bf16 TFLOP/s of the GPU (H100 SXM, H200: 989)"
    )
    parser.add_argument("--repeats", type=int, default=20, help="timed steps of each kind")
    parser.add_argument("--steps", type=int, default=1000, help="steps of the NaN check")
    parser.add_argument(
        "--images", metavar="DIR", help="folder with trainA and trainB for the NaN check (default: noise)"
    )
    args = parser.parse_args()
    device = torch.device(args.device)
    networks = model(64, 9, (4,))
    if args.tiny:
        networks, args.sizes, args.batches, args.repeats, args.steps = model(4, 3, (1,)), [32], [1, 2], 3, 5
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    print(header(device), flush=True)
    against_peers(networks, args.sizes[0], 1, args, device)
    against_peers(networks, args.sizes[0], min(16, args.batches[-1]), args, device)
    throughput(networks, args, device)
    stays_finite(networks, args, device)


if __name__ == "__main__":
    main()
