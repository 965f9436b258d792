"""Programs that each hold a part of a sum in registers, and wait until all parts are there: a group of them.

Each stores its part, arrives and waits, and then adds up all parts, in their order, so that bits repeat. Who waits occupies a
multiprocessor. That ends only if the others can start meanwhile, for which a group has at most MOST programs, and no more
than the device has multiprocessors. Programs start in the order of their numbers and a group's are consecutive, so at most
one group of a launch is there in part: with 132 multiprocessors of two programs, two of the largest at once still leave room,
from several streams or processes that share the multiprocessors.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from nla_cyclegan.kernels import launch

MOST = 128
"""Programs of a group whose members may wait."""
SHARED = 65_536
"""Counters that are filled at once: more than the passes of a player take at a batch of 32."""


@triton.jit
def meet(counter, size):
    """Arrive, after this program's part was stored, and wait for the others: then their parts may be read, past the first cache."""
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem="release")
    while tl.atomic_add(counter, 0, sem="acquire") < size:
        pass
    tl.debug_barrier()


@triton.jit
def held(v):
    """v, as it is, in registers: without this the compiler keeps the wider form that it was last computed with."""
    if v.dtype.primitive_bitwidth == 16:
        v = tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [v], dtype=v.dtype, is_pure=False, pack=2)
    return v


def may_wait(size: int, device: torch.device) -> bool:
    """Whether programs of a group of that size may wait for each other on that device. The interpreter runs one after the other."""
    if device.type == "cuda":
        return size <= min(MOST, torch.cuda.get_device_properties(device).multi_processor_count)
    return size <= MOST and launch.compiled is not None


class Counters:
    """Of those who arrived, one for each group of a launch: zeros, which serve one launch.

    Between `share` and `end` the launches take theirs from one tensor, filled once: a launch less for each of them. Both belong
    in what a CUDA graph captures, so that its replays fill it again.
    """

    def __init__(self) -> None:
        self._sharing = False
        self._left: Tensor | None = None

    def share(self) -> None:
        self._sharing, self._left = True, None

    def end(self) -> None:
        self._sharing, self._left = False, None

    def take(self, groups: int, device: torch.device) -> Tensor:
        if not self._sharing:
            return torch.zeros(groups, dtype=torch.int32, device=device)
        if self._left is None or len(self._left) < groups:
            self._left = torch.zeros(max(groups, SHARED), dtype=torch.int32, device=device)
        # Aligned: kernels are compiled anew for other addresses.
        taken, self._left = self._left[:groups], self._left[-(-groups // 4) * 4 :]
        return taken


counters = Counters()
