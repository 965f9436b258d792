"""Programs that each hold a part of a sum in registers, and wait for the whole of it: a group of them.

Each stores its part and arrives. The last one to arrive adds up all parts, in their order, so that bits repeat; then it opens
the group for those that wait. Who waits occupies a multiprocessor. That ends only if the others can start meanwhile, for
which a group has at most MOST programs, and no more than the device has multiprocessors. Programs start in the order of
their numbers and a group's are consecutive, so at most one group of a launch is there in part: with 132 multiprocessors of
two programs, four launches at once, from several streams or processes, still leave room.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from nla_cyclegan.kernels import launch

MOST = 64
"""Programs of a group whose members may wait."""


@triton.jit
def is_last(counter, size):
    """Arrive, after this program's part was stored. Whether all others have arrived; then their parts may be read."""
    tl.debug_barrier()
    return tl.atomic_add(counter, 1, sem="acq_rel") == size - 1


@triton.jit
def open_group(counter):
    """The last one's: what it stored may be read by those that wait."""
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem="release")


@triton.jit
def wait(counter, size):
    """Until the group is open."""
    while tl.atomic_add(counter, 0, sem="acquire") <= size:
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


def counters(groups: int, like: Tensor) -> Tensor:
    """Of those who arrived, one for each group of a launch."""
    return torch.zeros(groups, dtype=torch.int32, device=like.device)
