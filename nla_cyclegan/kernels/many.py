"""One launch over many tensors: a table of their addresses, and a list of chunks, one for each program.

70 parameters of a player in a launch each cost 0.1 ms at a batch of 1, where a whole step takes 10.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

CHUNK = 8192
"""Elements that a program takes."""
GRAPHS = 16
"""CUDA graphs that may hold tables of one object."""


class ManyTensors:
    """Tensors whose addresses stay, and others of the same sizes and memory order whose addresses may change each step.

    Args:
        rows: lists of as many tensors each; the tensors at one place of the lists have one size and one memory order.

    Attributes:
        table: int64 [rows, n], the addresses.
        chunks: int64 [programs, 3], for each program a tensor's place, the first element, and the tensor's size.
        aligned: whether every address is a multiple of 16 bytes, so that 16 bytes may be read at once.
    """

    def __init__(self, rows: Sequence[Sequence[Tensor]]) -> None:
        self.rows = [list(row) for row in rows]  # held, so that the addresses stay theirs
        self.like = self.rows[0]
        self.device = self.like[0].device
        for row in self.rows:
            self._check(row)
        self.table = torch.tensor([_addresses(row) for row in self.rows]).to(self.device)
        starts = [(i, start, t.numel()) for i, t in enumerate(self.like) for start in range(0, t.numel(), CHUNK)]
        self.chunks = torch.tensor(starts).to(self.device)
        self.aligned = _aligned(tensor for row in self.rows for tensor in row)
        # A copy within a CUDA graph reads its source again at each replay: a page-locked one that nobody else writes to.
        # They are made now, because a capture is no time to lock pages.
        spares = GRAPHS if self.device.type == "cuda" else 0
        self._spares = [torch.empty(len(self.like), dtype=torch.int64).pin_memory() for _ in range(spares)]
        self._in_graphs: list[Tensor] = []

    def changing(self, tensors: Sequence[Tensor]) -> tuple[Tensor, bool]:
        """Addresses of tensors that may be others the next time: int64 [n], and whether they are aligned.

        Without waiting for the device, and within a CUDA graph too, whose replays then find its own tensors. The tensors
        have to live until the kernels that use them have run.

        Raises: ValueError if a tensor's size or memory order is another; RuntimeError if more than GRAPHS graphs ask.
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
                    f"a tensor {list(tensor.shape)} of strides {tensor.stride()} and {tensor.dtype} stands beside a parameter"
                    f" {list(like.shape)} of strides {like.stride()}; the kernels need the same memory order, in fp32"
                )


def _addresses(tensors: Sequence[Tensor]) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]


def _aligned(tensors: Iterable[Tensor]) -> bool:
    return all(tensor.data_ptr() % 16 == 0 for tensor in tensors)


def _order(tensor: Tensor) -> list[int]:
    return [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]
