"""The pool of generated images that the discriminators train on (Shrivastava et al. 2017; Zhu et al. 2017, section 4)."""

import torch
from torch import Tensor


class ImagePool:
    """The last generated images of one domain, in a tensor on the images' device.

    While the pool fills, a query keeps each image and gives it back. Once it is full, each image is, with probability
    1/2, exchanged for a stored one, which is given back instead; else it goes through and is not kept.

    The draws come from the generator passed to `query`, on the CPU: no synchronisation with the GPU.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.size = 0
        self._stored: Tensor | None = None

    def query(self, images: Tensor, random: torch.Generator) -> Tensor:
        """images [n, 3, H, W] -> as many, each either itself or one from the image pool; the input is not kept alive."""
        if self.capacity == 0:
            return images
        stored = self._storage(images)
        given = images.clone()
        swaps = torch.rand(len(images), generator=random).tolist()
        slots = torch.randint(self.capacity, (len(images),), generator=random).tolist()
        for i, image in enumerate(images):
            if self.size < self.capacity:
                stored[self.size] = image
                self.size += 1
            elif swaps[i] < 0.5:
                given[i] = stored[slots[i]]
                stored[slots[i]] = image
        return given

    @property
    def images(self) -> Tensor | None:
        """The stored images [size, 3, H, W], slot by slot; None before the first query."""
        return None if self._stored is None else self._stored[: self.size]

    def load_images(self, images: Tensor | None) -> None:
        """Replace the image pool, cut to the capacity."""
        self._stored, self.size = None, 0
        if images is not None and self.capacity:
            self.size = min(len(images), self.capacity)
            self._storage(images)[: self.size] = images[: self.size]

    def _storage(self, like: Tensor) -> Tensor:
        if self._stored is None:
            self._stored = like.new_zeros((self.capacity, *like.shape[1:]))
        return self._stored
