"""The least time of each kind of kernels of a fused step: what they must move and compute, over a card's measured rates.

python tests/benchmarks/kernel_needs.py --batch 16 --gemm-tflops 757 --copy-gb 4211
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from kernel_times import kind_of
from peers import model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from nla_cyclegan import ModelConfig
from nla_cyclegan.kernels import launch as launching
from nla_cyclegan.kernels.networks import Fused
from nla_cyclegan.model.discriminator import PatchDiscriminator
from nla_cyclegan.model.generator import Generator

aten = torch.ops.aten
FORWARD, IMAGE_GRAD, WEIGHT_GRAD = (f"convolution, {each}" for each in ("forward", "input gradient", "weight gradient"))
UPDATE_BYTES, AVERAGE_BYTES = 8 * 4, 3 * 4
"""Of a parameter: the gradient read twice, for its norm too, the others read and written; of a parameter with an average."""


@dataclass
class Need:
    """Bytes moved and floating-point operations, of a step."""

    moved: float = 0.0
    flops: float = 0.0

    def ms(self, gemm_tflops: float, copy_gb_per_s: float) -> float:
        """The larger of the two times."""
        return max(self.moved / copy_gb_per_s / 1e6, self.flops / gemm_tflops / 1e9)


class _Operators(TorchDispatchMode):
    """Counts the FLOPs of convolutions, matrix products and attention."""

    def __init__(self, needs: dict[str, Need]) -> None:
        super().__init__()
        self.needs = needs

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        operator = func._overloadpacket
        if operator in flop_registry:
            if operator is aten.convolution_backward:
                # The same function counts both gradients; each is wanted apart.
                for kind, mask in ((IMAGE_GRAD, [True, False, False]), (WEIGHT_GRAD, [False, True, False])):
                    if args[10][mask.index(True)]:
                        self.needs[kind].flops += flop_registry[operator](*args[:10], mask, out_val=out)
            else:
                flops = flop_registry[operator](*args, **(kwargs or {}), out_val=out)
                self.needs[_kind(operator)].flops += flops
        return out


def _kind(operator: Any) -> str:
    if operator is aten.convolution:
        return FORWARD
    # Without a device attention is two matrix products a sample; its kernels compute one of them again in the backward pass.
    return "attention" if operator is aten.bmm else "matrix product"


@contextmanager
def _counted(needs: dict[str, Need]) -> Iterator[None]:
    """Our kernels are not launched; the bytes of their tensors are counted, each once."""

    def launch(kernel: Any, programs: int, *args: Any, **constants: Any) -> None:
        tensors = {each.untyped_storage()._cdata: each for each in args if isinstance(each, Tensor)}
        needs[kind_of(kernel.__name__)].moved += sum(each.numel() * each.itemsize for each in tensors.values())

    original = launching.launch
    users = [each for name, each in sys.modules.items() if name.startswith("nla_cyclegan.kernels.layers.")]
    users = [each for each in users if getattr(each, "launch", None) is original]
    for each in users:
        each.launch = launch  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for each in users:
            each.launch = original  # type: ignore[attr-defined]


def needs_of(networks: ModelConfig, batch: int, size: int) -> dict[str, Need]:
    """Kind of kernel, as in `kernel_times`, -> what a bf16 step of so many pairs needs; both players, losses, Nadam, EMA."""
    needs: dict[str, Need] = defaultdict(Need)
    fused = Fused(torch.bfloat16)

    def run(build: Callable[[], nn.Module], images: int, trained: bool, image_grad: bool) -> nn.Module:
        with torch.device("meta"):
            network = build().to(memory_format=torch.channels_last).requires_grad_(trained)
            dtype = torch.bfloat16 if image_grad else torch.float32
            image = torch.empty((images, 3, size, size), dtype=dtype, requires_grad=image_grad)
        out = fused(network, image)
        if isinstance(network, Generator):
            losses = [fused.l1(out, torch.empty_like(out, dtype=torch.float32))] + [out.float().mean()] * (
                not image_grad
            )
        else:
            losses = [fused.lsgan(out, 1.0)]
        torch.autograd.backward(losses, [torch.empty_like(each) for each in losses])
        return network

    with _counted(needs), _Operators(needs):
        for _direction in range(2):
            # Input and identity image go through a generator in one batch; so do the discriminator's two kinds of images.
            run(lambda: Generator(networks.generator), 2 * batch, trained=True, image_grad=False)
            run(lambda: Generator(networks.generator), batch, trained=True, image_grad=True)
            run(lambda: PatchDiscriminator(networks.discriminator), batch, trained=False, image_grad=True)
            run(lambda: PatchDiscriminator(networks.discriminator), 2 * batch, trained=True, image_grad=False)
    with torch.device("meta"):
        generator, discriminator = Generator(networks.generator), PatchDiscriminator(networks.discriminator)
    averaged, others = (sum(each.numel() for each in net.parameters()) for net in (generator, discriminator))
    needs["optimizer, EMA"].moved += 2 * (UPDATE_BYTES * (averaged + others) + AVERAGE_BYTES * averaged)
    return dict(needs)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="What a fused bf16 step (64 channels, 9 blocks, one of them non-local) must move and compute, and its least time.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--batch", type=int, default=16, help="image pairs of a step")
    parser.add_argument("--size", type=int, default=256, help="side of the images in pixels")
    parser.add_argument("--gemm-tflops", type=float, default=757.0, help="rate of a large bf16 matrix product, TFLOP/s")
    parser.add_argument("--copy-gb", type=float, default=4211.0, help="bytes read and written by a copy, GB/s")
    args = parser.parse_args()
    needs = needs_of(model(64, 9, (4,)), args.batch, args.size)
    rows = sorted(((need.ms(args.gemm_tflops, args.copy_gb), kind, need) for kind, need in needs.items()), reverse=True)
    print(f"{'kind':28} {'GB':>8} {'TFLOP':>8} {'least ms':>9}")
    for ms, kind, need in rows:
        print(f"{kind:28} {need.moved / 1e9:8.2f} {need.flops / 1e12:8.3f} {ms:9.3f}")
    print(f"{'sum':28} {'':8} {'':8} {sum(ms for ms, *_ in rows):9.3f}")


if __name__ == "__main__":
    main()
