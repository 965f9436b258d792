"""Compiles the kernels of a training step, for a GPU that need not be there; `cache` starts several processes of it.

It compiles what a step launches over meta tensors, which have shapes and no data.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
import triton
from torch import nn

from nla_cyclegan.kernels import launch
from nla_cyclegan.kernels.networks import Fused
from nla_cyclegan.model.config import ModelConfig
from nla_cyclegan.model.discriminator import PatchDiscriminator
from nla_cyclegan.model.generator import Generator


class _Driver:
    """The part of a Triton driver that compiling needs."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        return triton.backends.compiler.GPUTarget("cuda", self.capability, 32)

    def map_python_to_cpp_type(self, kind: str) -> str:
        return kind


@contextmanager
def compiling(capability: int, part: tuple[int, int] = (0, 1)) -> Iterator[list[tuple[str, Any]]]:
    """Kernels that are launched within it are compiled and not run -> the name and the compiled form for each launch.

    Args:
        capability: compute capability of the GPU, 10 times its major number plus its minor, as in 90.
        part: (i, n): every n-th kernel from the i-th on.
    """
    found: list[tuple[str, Any]] = []
    triton.runtime.driver.set_active(_Driver(capability))
    launch.compiled, launch.part = found, part
    try:
        yield found
    finally:
        launch.compiled, launch.part = None, (0, 1)
        # Without a GPU there is no driver to go back to.
        with suppress(RuntimeError):
            triton.runtime.driver.reset_active()


def compile_pass(network: Callable[[], nn.Module], shape: tuple[int, int, int, int], dtype: torch.dtype, *, image_grad: bool) -> None:  # fmt: skip
    """A forward pass of images [B, 3, H, W], the losses of its result, and the backward pass, within `compiling`.

    Args:
        network: makes the network, on the meta device.
        image_grad: whether the images require gradients, as those that a generator made do.
    """
    with torch.device("meta"):
        made = network().to(memory_format=torch.channels_last)
        # A generator's images come in the type of the computation, those of the dataset in fp32.
        image = torch.empty(shape, dtype=dtype if image_grad else torch.float32, requires_grad=image_grad)
    fused = Fused(dtype)
    out = fused(made, image)
    results = [out]
    if image_grad:
        if isinstance(made, Generator):
            results.append(fused.l1(out, torch.empty(shape, device="meta")))
        else:
            results += [fused.lsgan(out, target) for target in (0.0, 1.0)]
    torch.autograd.backward(results, [torch.empty_like(each) for each in results])


def compile_step(model: ModelConfig, precision: str, pairs: int, size: int) -> None:
    """The passes of a training step, within `compiling`."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    # A generator takes input and identity image in one batch, the cycle's image in another; the discriminator's step takes two images, the generator's one.
    for network, images, image_grad in (
        (lambda: Generator(model.generator), 2 * pairs, False),
        (lambda: Generator(model.generator), pairs, True),
        (lambda: PatchDiscriminator(model.discriminator), 2 * pairs, False),
        (lambda: PatchDiscriminator(model.discriminator), pairs, True),
    ):
        compile_pass(network, (images, 3, size, size), dtype, image_grad=image_grad)


def _main(wanted: str, index: str, count: str) -> None:
    model, precision, pairs, size, capability = json.loads(wanted)
    torch.set_num_threads(1)
    with compiling(capability, (int(index), int(count))):
        compile_step(ModelConfig.model_validate(model), precision, pairs, size)


if __name__ == "__main__":
    _main(*sys.argv[1:])
