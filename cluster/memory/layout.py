"""The layout of named tensors in one byte buffer: the state of a run is copied, sent and read back as one piece."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

ALIGNED_BYTES = 64


@dataclass(frozen=True)
class Place:
    """The place of one tensor in the buffer."""

    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def size(self) -> int:
        """In bytes."""
        return getattr(torch, self.dtype).itemsize * torch.Size(self.shape).numel()


@dataclass(frozen=True)
class Layout:
    """The places of named tensors, consecutive in a buffer.

    Attributes:
        size: of the buffer, in bytes.
    """

    places: Mapping[str, Place]

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Layout":
        return cls._one_after_the_other(
            (name, name_of(each.dtype), tuple(each.shape)) for name, each in tensors.items()
        )

    @classmethod
    def from_json(cls, value: list[list[object]]) -> "Layout":
        return cls._one_after_the_other((str(name), str(dtype), tuple(shape)) for name, dtype, shape in value)  # type: ignore[arg-type]

    @classmethod
    def _one_after_the_other(cls, tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> "Layout":
        places, start = {}, 0
        for name, dtype, shape in tensors:
            places[name] = place = Place(dtype, shape, start)
            start += aligned(place.size)
        return cls(places)

    def to_json(self) -> list[list[object]]:
        return [[name, place.dtype, list(place.shape)] for name, place in self.places.items()]

    @cached_property
    def size(self) -> int:
        return max((place.start + place.size for place in self.places.values()), default=0)

    @cached_property
    def fingerprint(self) -> str:
        """A hash that is equal for equal names, types and shapes in the same order."""
        return hashlib.sha256(json.dumps(self.to_json()).encode()).hexdigest()[:16]

    def views(self, buffer: Tensor) -> dict[str, Tensor]:
        """The tensors, as views of a buffer uint8 [size]."""
        return {
            name: buffer[place.start : place.start + place.size].view(getattr(torch, place.dtype)).view(place.shape)
            for name, place in self.places.items()
        }


def aligned(size: int) -> int:
    return -(-size // ALIGNED_BYTES) * ALIGNED_BYTES


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
