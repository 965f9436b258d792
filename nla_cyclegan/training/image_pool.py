"""The pool of generated images that the discriminators train on (Shrivastava et al. 2017; Zhu et al. 2017, section 4)."""

import torch
from torch import Tensor


class ImagePool:
    """The last generated images of one domain, in a tensor on the device, in that memory order.

    While the pool fills, it keeps each image and gives it back. Once it is full, each image is, with probability 1/2,
    exchanged for a stored one, which is given back instead; else it goes through and is not kept.

    The host decides (`draw`) and the device follows (`exchange`), by indices alone: neither waits for the other, and a
    CUDA graph may replay the exchange.
    """

    def __init__(
        self,
        capacity: int,
        device: torch.device | str = "cpu",
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self.capacity, self.device, self.memory_format = capacity, device, memory_format
        self.size = 0
        self._stored: Tensor | None = None

    def draw(self, count: int, random: torch.Generator) -> Tensor:
        """Draw the exchange of the next `count` images -> the indices for `exchange`, in CPU memory."""
        if self.capacity == 0:
            return self.idle(count)
        swaps = torch.rand(count, generator=random).tolist()
        slots = torch.randint(self.capacity, (count,), generator=random).tolist()
        given: list[int] = []
        written: dict[int, int] = {}
        for image, (swap, slot) in enumerate(zip(swaps, slots, strict=True), start=self.capacity):
            if self.size < self.capacity:
                given.append(image)
                written[self.size] = image
                self.size += 1
            elif swap < 0.5:
                given.append(written.get(slot, slot))
                written[slot] = image
            else:
                given.append(image)
        return self._indices(given, written)

    def idle(self, count: int) -> Tensor:
        """As `draw`, for images that are all passed on unchanged."""
        return self._indices([*range(self.capacity, self.capacity + count)], {})

    def exchange(self, images: Tensor, indices: Tensor) -> Tensor:
        """Images [n, 3, H, W] -> as many, each either itself or one from the pool; the input is not kept alive.

        Args:
            indices: int64 [3, n] on the images' device: which image is given back, which slots are written, and with which
                image. Images are counted from the stored ones on.
        """
        if self.capacity == 0:
            return images
        stored = self._storage(images)
        everything = torch.cat((stored, images))
        given, slots, sources = indices
        stored.index_copy_(0, slots, everything.index_select(0, sources))
        return torch.empty_like(images).copy_(everything.index_select(0, given))

    @property
    def images(self) -> Tensor | None:
        """The stored images [size, 3, H, W]; None while there are none."""
        return None if self._stored is None or self.size == 0 else self._stored[: self.size]

    def load_images(self, images: Tensor | None) -> None:
        """Replace the stored images, cut to the capacity; they go to the pool's device."""
        self.size = 0
        if images is not None and self.capacity:
            self.size = min(len(images), self.capacity)
            self._storage(images)[: self.size] = images[: self.size]

    def _indices(self, given: list[int], written: dict[int, int]) -> Tensor:
        # Always as many writes as images: surplus ones repeat another one's write.
        writes = [*written.items()] or [(0, 0)]
        slots, sources = zip(*writes, *writes[:1] * (len(given) - len(writes)), strict=True)
        return torch.tensor([given, slots, sources])

    def _storage(self, like: Tensor) -> Tensor:
        if self._stored is None:
            stored = torch.zeros((self.capacity, *like.shape[1:]), dtype=like.dtype, device=self.device)
            self._stored = stored.contiguous(memory_format=self.memory_format)
        elif self._stored.dtype != like.dtype:
            self._stored = self._stored.to(like.dtype)
        return self._stored
