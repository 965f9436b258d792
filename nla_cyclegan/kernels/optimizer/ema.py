"""The exponential moving average of all weights in one launch: average += rate (weight - average). Bytes: 12 an element."""

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from nla_cyclegan.kernels.optimizer.multi_tensor import MultiTensor, address, chunk_of


@triton.jit
def _average(chunks, table, rate, applies, COUNT: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr):  # fmt: skip
    """table [2, COUNT]: averages, weights."""
    i, start, size = chunk_of(chunks, BLOCK)
    average = address(table, i, ALIGNED)
    weight = address(table, COUNT + i, ALIGNED)
    by = tl.load(rate).to(tl.float32) * tl.load(applies).to(tl.float32)
    for first in range(0, CHUNK, BLOCK):
        e = start + first + tl.arange(0, BLOCK)
        v = tl.load(average + e, mask=e < size)
        tl.store(average + e, v + by * (tl.load(weight + e, mask=e < size) - v), mask=e < size)


class Averages:
    """Moving averages of weights, all fp32 of one device, each average in its weight's memory order.

    Args:
        averages, weights: must stay the same tensors; load new values by copying into them.
    """

    def __init__(self, averages: Sequence[Tensor], weights: Sequence[Tensor]) -> None:
        self.tensors = MultiTensor([averages, weights])

    def update(self, rate: Tensor, applies: Tensor) -> None:
        """Move each average towards its weight.

        Args:
            rate: scalar on the device, the fraction of the difference to move by.
            applies: bool scalar on the device; nothing moves while it is False.
        """
        self.tensors.launch(_average, self.tensors.table, rate, applies, COUNT=len(self.tensors))
