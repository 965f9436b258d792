"""One launch over many tensors: a table of their addresses, and a list of chunks, one for each program.

With one launch for each of a network's 70 parameters, the optimizer would take 0.1 ms of a step at batch 1, which takes 10 ms.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from nla_cyclegan.kernels.launch import launch

CHUNK = 8192
"""Elements that a program takes."""
BLOCK = 1024
"""Elements that a program reads at once."""
GRAPHS = 16
"""CUDA graphs that may hold tables of one object."""


@triton.jit
def chunk_of(chunks, BLOCK: tl.constexpr):
    """The place of this program's tensor, the first element of its chunk, and the tensor's size."""
    chunk = chunks + tl.program_id(0) * 3
    return tl.load(chunk), tl.multiple_of(tl.load(chunk + 1), BLOCK), tl.load(chunk + 2)


@triton.jit
def address(table, i, ALIGNED: tl.constexpr):
    """The fp32 tensor at place i of a table of addresses."""
    at = tl.load(table + i).to(tl.pointer_type(tl.float32))
    if ALIGNED:
        at = tl.multiple_of(at, 16)
    return at


class MultiTensor:
    """Tensors whose addresses stay the same, and others of the same sizes and memory order whose addresses may change each step.

    Args:
        rows: lists of equal length; the tensors at one place of all lists have one size and one memory order.

    Attributes:
        table: int64 [rows, n], addresses.
        chunks: int64 [programs, 3], for each program the place of its tensor, the first element, and the tensor's size.
        aligned: whether every address is a multiple of 16 bytes, as vectorized loads need.
    """

    def __init__(self, rows: Sequence[Sequence[Tensor]]) -> None:
        self.rows = [list(row) for row in rows]  # keeps the memory at these addresses alive
        self.like = self.rows[0]
        self.device = self.like[0].device
        for row in self.rows:
            self._check(row)
        self.table = torch.tensor([_addresses(row) for row in self.rows]).to(self.device)
        starts = [(i, start, t.numel()) for i, t in enumerate(self.like) for start in range(0, t.numel(), CHUNK)]
        self.chunks = torch.tensor(starts).to(self.device)
        self.aligned = _aligned(tensor for row in self.rows for tensor in row)
        # A copy within a CUDA graph reads its source again at each replay, so each graph needs a page-locked one of its own.
        # They are allocated here, because pages cannot be locked during a capture.
        spares = GRAPHS if self.device.type == "cuda" else 0
        self._spares = [torch.empty(len(self.like), dtype=torch.int64).pin_memory() for _ in range(spares)]
        self._in_graphs: list[Tensor] = []

    def __len__(self) -> int:
        """The number of tensors in a row."""
        return len(self.like)

    def launch(self, kernel: Any, *args: Any, aligned: bool = True, **constants: Any) -> None:
        """Run a kernel whose first argument is the list of chunks.

        Args:
            aligned: whether the tensors that `args` name beside the table are aligned too.
            constants: beside CHUNK, BLOCK and ALIGNED.
        """
        constants |= {"CHUNK": CHUNK, "BLOCK": BLOCK, "ALIGNED": self.aligned and aligned}
        launch(kernel, len(self.chunks), self.chunks, *args, **constants)

    def changing(self, tensors: Sequence[Tensor]) -> tuple[Tensor, bool]:
        """Addresses of tensors that may be different ones at the next call: int64 [n], and whether they are aligned.

        Does not wait for the device. Within a CUDA graph, replays use the tensors of its capture. The tensors must live
        until the kernels that use them have run.

        Raises: ValueError if a tensor's size or memory order differs; RuntimeError after GRAPHS captures.
        """
        self._check(tensors)
        addresses = torch.tensor(_addresses(tensors))
        if self.device.type == "cuda":
            if torch.cuda.is_current_stream_capturing():
                if not self._spares:
                    raise RuntimeError(f"more than {GRAPHS} CUDA graphs were captured with the same optimizer")
                addresses = self._spares.pop().copy_(addresses)
                self._in_graphs.append(addresses)
            else:
                addresses = addresses.pin_memory()
        return addresses.to(self.device, non_blocking=True), _aligned(tensors)

    def _check(self, tensors: Sequence[Tensor]) -> None:
        for tensor, like in zip(tensors, self.like, strict=True):
            if tensor.shape != like.shape or _order(tensor) != _order(like) or tensor.dtype != torch.float32:
                raise ValueError(
                    f"a tensor {list(tensor.shape)} of strides {tensor.stride()} in {tensor.dtype} belongs to a parameter"
                    f" {list(like.shape)} of strides {like.stride()}; the kernels need the same memory order, in fp32"
                )


def _addresses(tensors: Sequence[Tensor]) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]


def _aligned(tensors: Iterable[Tensor]) -> bool:
    return all(tensor.data_ptr() % 16 == 0 for tensor in tensors)


def _order(tensor: Tensor) -> list[int]:
    return [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]
