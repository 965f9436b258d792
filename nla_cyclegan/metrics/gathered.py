"""Collects the vectors of a set of images that the distances need, in one pass over the images.

Memory does not grow with the number of images: the vectors lie in unnamed temporary files, which the system deletes at the end.
"""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from nla_cyclegan.metrics.lab_colours import COLOUR
from nla_cyclegan.metrics.sampled import Kind, Sampler
from nla_cyclegan.metrics.sliced_wasserstein import STRUCTURE

KINDS = (STRUCTURE, COLOUR)
FEATURES = "features"


class Rows:
    """Vectors in a file, float32.

    Args:
        stored: reads vectors that were gathered before.
    """

    def __init__(self, stored: Callable[[], Tensor] | None = None) -> None:
        self._stored = stored
        self._file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the rows
        self._width = 0

    def add(self, rows_ND: Tensor) -> None:
        """Raises: OSError where the folder for temporary files is full."""
        self._width = rows_ND.shape[1]
        self._file.write(rows_ND.cpu().contiguous().numpy().data)

    def read(self) -> Tensor:
        """All rows [N, D], memory-mapped from the file."""
        if self._stored:
            return self._stored()
        self._file.flush()
        if not self._width or not self._file.tell():
            return torch.empty(0, self._width)
        # Copy on write, because torch wants writable memory.
        return torch.from_numpy(np.memmap(self._file, np.float32, "c").reshape(-1, self._width))


class Gathered:
    """A set of images of one shorter side.

    Args:
        size: the shorter side in pixels.
        images: largest number of images that will be added.
        network: uint8 [B, 3, H, W] -> features [B, D]; None: no features are needed, or `features` is set.
        seed: seed of the vectors' places.

    Attributes:
        count: number of images added so far.
        features: features of all images, [count, D]; None without a network.
    """

    def __init__(
        self, size: int, images: int, network: Callable[[Tensor], Tensor] | None = None, *, seed: int = 0
    ) -> None:
        self.size, self.network, self.seed, self.count = size, network, seed, 0
        self._samplers = {
            kind: [Sampler(kind, level, images, seed) for level in range(len(kind.sides(size)))] for kind in KINDS
        }
        self._rows = {kind: [Rows() for _ in samplers] for kind, samplers in self._samplers.items()}
        self._features = Rows()
        self.features: Tensor | None = None

    @classmethod
    def restored(
        cls, size: int, count: int, read: Callable[[str], Tensor], names: Sequence[str], *, seed: int = 0
    ) -> "Gathered":
        """A set whose `parts` are read by their names."""
        found = cls(size, count, seed=seed)
        found.count = count
        found._rows = {
            kind: [Rows(partial(read, f"{kind.name}.{level}")) for level in range(len(rows))]
            for kind, rows in found._rows.items()
        }
        found.features = read(FEATURES) if FEATURES in names else None
        return found

    def parts(self) -> dict[str, Callable[[], Tensor]]:
        """Name of each array of the set -> function that reads it."""
        vectors = {
            f"{kind.name}.{level}": each.read for kind, rows in self._rows.items() for level, each in enumerate(rows)
        }
        features = self.features
        return vectors if features is None else vectors | {FEATURES: lambda: features}

    def add(self, images_BCHW: Tensor) -> None:
        """Add images: uint8 [B, 3, H, W], H or W of them `size`, the other at least that."""
        self.count += len(images_BCHW)
        for kind, samplers in self._samplers.items():
            scaled = kind.scales(images_BCHW, range(len(samplers)))
            for each, draw, rows in zip(scaled, samplers, self._rows[kind], strict=True):
                rows.add(draw(each))
        if self.network:
            self._features.add(self.network(images_BCHW))

    def finish(self) -> None:
        """Finish the set after the last image."""
        if self.network:
            self.features = self._features.read()

    def vectors(self, kind: Kind, level: int) -> Tensor:
        """The vectors of one scale, ready to be compared, [P, D]."""
        return kind.finish(self._rows[kind][level].read())


def distances(kind: Kind, a: Gathered, b: Gathered, done: Callable[[], object] = lambda: None) -> dict[int, float]:
    """The distance of two sets at each scale: shorter side in pixels -> distance.

    Args:
        done: called after each scale.
    """
    found = {}
    for level, side in enumerate(kind.sides(a.size)):
        found[side] = kind.distance(a.vectors(kind, level), b.vectors(kind, level), level, a.seed)
        done()
    return found
