"""What all kernels share: how they are launched, or compiled without being launched, and tensors in NHWC memory order.

Shape suffixes: B images, C channels, H x W positions. All images and features are [B, C, H, W] in NHWC order (channels_last).
"""

from typing import Any

import torch
from torch import Tensor

FILL = 528
"""Programs that fill a GPU: 4 for each of the 132 multiprocessors of an H100. A constant, so that results do not depend on the GPU's size."""
MOST = 2**31
"""A tensor must have fewer elements than this: the kernels index with 32 bits."""

compiled: list[tuple[str, Any]] | None = None
"""None: kernels run. A list: they are only compiled, and their names and compiled forms are appended to it (see `compilation`)."""
part: tuple[int, int] = (0, 1)
"""(i, n): of the kernels that are only compiled, every n-th from the i-th on. Other processes compile the others."""
_places: dict[Any, int] = {}


def launch(kernel: Any, programs: int, *args: Any, warps: int = 4, stages: int = 3, **constants: Any) -> None:
    """Run that many programs of a Triton kernel, with its arguments in order and its constants by name."""
    constants |= {"num_warps": warps, "num_stages": stages}
    if compiled is None:
        kernel[(programs,)](*args, **constants)
        return
    kind = kernel.__name__, tuple(sorted(constants.items())), tuple(getattr(arg, "dtype", type(arg)) for arg in args)
    if _places.setdefault(kind, len(_places)) % part[1] == part[0]:
        compiled.append((kernel.__name__, kernel.warmup(*args, grid=(programs,), **constants)))


def nhwc(x_BCHW: Tensor) -> Tensor:
    """The tensor in NHWC order, not copied if it already is. Raises: ValueError if it has MOST elements or more."""
    if x_BCHW.numel() >= MOST:
        raise ValueError(
            f"a tensor of {list(x_BCHW.shape)} has {MOST} elements or more, which the kernels cannot index; lower step.micro_batch"
        )
    return x_BCHW.contiguous(memory_format=torch.channels_last)


def new_nhwc(b: int, c: int, h: int, w: int, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An uninitialized [b, c, h, w] in NHWC order, with the strides of NHWC even for a single channel or pixel."""
    return torch.empty((b, h, w, c), dtype=dtype or like.dtype, device=like.device).permute(0, 3, 1, 2)


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def power_of_2(n: int) -> int:
    """The smallest power of 2 that is at least n."""
    return 1 << (n - 1).bit_length()


def share(n: int, tile: int, others: int, most: int = 8) -> int:
    """Positions that one program of an elementwise kernel takes: `tile` times 1 to `most`, the most that still fill the GPU.

    Args:
        n: positions in a sample.
        others: samples times blocks of channels.
    """
    return tile * max(1, min(most, n * others // (tile * FILL)))
