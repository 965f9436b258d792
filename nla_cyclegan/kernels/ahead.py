"""Kernels compiled ahead of their first use, for a GPU that need not be there.

What is compiled is what a pass over meta tensors would launch: shapes without numbers. The results lie in Triton's cache
(TRITON_CACHE_DIR), where the process with the GPU finds them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
import triton
from torch import nn

from nla_cyclegan.kernels import launch
from nla_cyclegan.kernels.networks import Fused


class _Driver:
    """As much of a driver as Triton asks for when it only compiles."""

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
def compiling(capability: int) -> Iterator[list[tuple[str, Any]]]:
    """Within it kernels are compiled and not run -> their names and what Triton makes of them, one for each launch.

    Args:
        capability: of the GPU to compile for, 10 times its major number plus its minor, as in 90.
    """
    found: list[tuple[str, Any]] = []
    triton.runtime.driver.set_active(_Driver(capability))
    launch.compiled = found
    try:
        yield found
    finally:
        launch.compiled = None
        # Without a GPU there is no driver to go back to.
        with suppress(RuntimeError):
            triton.runtime.driver.reset_active()


def compile_pass(network: Callable[[], nn.Module], shape: tuple[int, int, int, int], dtype: torch.dtype, *, image_grad: bool) -> None:  # fmt: skip
    """A pass of images [B, 3, H, W] and its gradients, within `compiling`.

    Args:
        network: makes the network; it is built without memory.
        image_grad: whether the images want a gradient: those that a generator painted do.
    """
    with torch.device("meta"):
        made = network().to(memory_format=torch.channels_last)
        # Images that a generator painted come in the type of the computation, others in fp32.
        image = torch.empty(shape, dtype=dtype if image_grad else torch.float32, requires_grad=image_grad)
    out = Fused(dtype)(made, image)
    out.backward(torch.empty_like(out))
