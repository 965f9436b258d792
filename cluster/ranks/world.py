"""The ranks of a worker group, seen from one of them; a single rank if no process group was started."""

import json
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")
CPU = torch.device("cpu")
# A large file is sent in pieces, each of which needs this much additional memory on the device.
PIECE_BYTES = 64 * 2**20
LONGEST_VALUE = 64 * 2**20


@dataclass(frozen=True)
class World:
    """This rank, the number of ranks, and what the ranks do together.

    Every method must be called by all ranks, in the same order. Values cross as JSON, never as pickles: whoever reaches the
    ranks' sockets on a cluster's network could have those run any code.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @classmethod
    def current(cls, device: torch.device = CPU) -> "World":
        """The world of the process group that is running, if any; this process's rank computes on the device."""
        if not dist.is_initialized():
            return cls(device=device)
        return cls(dist.get_rank(), dist.get_world_size(), device)

    def all_reduce(self, values: Tensor) -> dist.Work:
        """Begin to replace the values by their sum over the ranks; what it returns can be waited for. Not for a single rank."""
        work = dist.all_reduce(values, async_op=True)
        assert work is not None
        return work

    def sum(self, values: Tensor) -> Tensor:
        """The element-wise sum over the ranks, on every rank."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in the order of the ranks.

        Args:
            value: numbers, texts, None, lists and dicts with texts as keys. Floats arrive bit for bit, also infinite ones
                and NaN; tuples arrive as lists, whatever the number of ranks.
        """
        mine = _encoded(value)
        if self.size == 1:
            return [_decoded(mine)]
        lengths = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(mine)], device=self.device))
        sizes = [_length(length) for length in lengths]
        # Collectives require equal sizes.
        padded = torch.zeros(max(sizes), dtype=torch.uint8, device=self.device)
        padded[: len(mine)] = _tensor(mine)
        texts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(texts, padded)
        return [_decoded(_bytes(text[:size])) for text, size in zip(texts, sizes, strict=True)]

    def broadcast(self, value: T) -> T:
        """Rank 0's value, on every rank; see `gather`."""
        mine = _encoded(value) if self.rank == 0 else b""
        if self.size == 1:
            return _decoded(mine)
        length = torch.tensor([len(mine)], device=self.device)
        dist.broadcast(length, src=0)
        return _decoded(self.broadcast_bytes(mine if self.rank == 0 else None, _length(length)))

    def broadcast_bytes(self, content: bytes | None, size: int, source: int = 0) -> bytes:
        """The bytes of one rank, on every rank.

        Args:
            content: at the source; None elsewhere.
            size: how many bytes, known to all.
        """
        if self.size == 1:
            assert content is not None
            return content
        received = bytearray(size) if content is None else bytearray(content)
        for start in range(0, size, PIECE_BYTES):
            piece = _tensor(memoryview(received)[start : start + PIECE_BYTES]).to(self.device)
            dist.broadcast(piece, src=source)
            if self.rank != source:
                received[start : start + len(piece)] = _bytes(piece)
        return bytes(received)

    def gather_into(self, target: Tensor, mine: Tensor) -> Tensor:
        """Every rank's tensor, in the order of the ranks, as the target [size, ...] on the device."""
        if self.size == 1:
            target[0].copy_(mine)
        else:
            dist.all_gather([*target.unbind()], mine)
        return target

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


def _encoded(value: object) -> bytes:
    return json.dumps(value).encode()


def _decoded(text: bytes) -> T:  # type: ignore[type-var]
    return json.loads(text)


def _length(length: Tensor) -> int:
    size = int(length.item())
    if not 0 < size <= LONGEST_VALUE:
        raise RuntimeError(f"a rank announced a value of {size} bytes; at most {LONGEST_VALUE} are taken")
    return size


def _tensor(content: bytes | memoryview) -> Tensor:
    # Its own copy: of read-only bytes torch would warn.
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.cpu().numpy().tobytes()
