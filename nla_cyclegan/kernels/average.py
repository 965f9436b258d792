"""The exponential moving average of all weights in one launch: average += rate (weight - average). Bytes: 12 an element."""

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from nla_cyclegan.kernels.launch import launch
from nla_cyclegan.kernels.many import CHUNK, ManyTensors
from nla_cyclegan.kernels.optimizer import BLOCK, address


@triton.jit
def _average(chunks, table, rate, applies, COUNT: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr):  # fmt: skip
    """table [2, COUNT]: averages, weights."""
    chunk = chunks + tl.program_id(0) * 3
    i = tl.load(chunk)
    start = tl.multiple_of(tl.load(chunk + 1), BLOCK)
    size = tl.load(chunk + 2)
    average = address(table, i, ALIGNED)
    weight = address(table, COUNT + i, ALIGNED)
    by = tl.load(rate).to(tl.float32) * tl.load(applies).to(tl.float32)
    for first in range(0, CHUNK, BLOCK):
        e = start + first + tl.arange(0, BLOCK)
        v = tl.load(average + e, mask=e < size)
        tl.store(average + e, v + by * (tl.load(weight + e, mask=e < size) - v), mask=e < size)


class Averages:
    """Follows weights, all fp32 of one device, each average in its weight's memory order.

    Args:
        averages, weights: must stay the tensors they are; what is loaded into them is copied.
    """

    def __init__(self, averages: Sequence[Tensor], weights: Sequence[Tensor]) -> None:
        self.many = ManyTensors([averages, weights])

    def follow(self, rate: Tensor, applies: Tensor) -> None:
        """Move each average by so much of its way: rate is a scalar on the device. Nothing moves while `applies`, a bool scalar, is False."""
        launch(
            _average, len(self.many.chunks), self.many.chunks, self.many.table, rate, applies,
            COUNT=len(self.many.like), CHUNK=CHUNK, BLOCK=BLOCK, ALIGNED=self.many.aligned,
        )  # fmt: skip
