"""Gradients summed over the ranks of a run, bucket by bucket, while the backward is still under way (Li et al. 2020, "PyTorch Distributed")."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

BUCKET_BYTES = 25 * 2**20
"""Size at which a bucket is closed: a message for each gradient would pay the network's latency each time."""


class Work(Protocol):
    """A running collective."""

    def wait(self) -> object: ...


AllReduce = Callable[[Tensor], Work]
"""Starts to replace a tensor by its sum over all ranks."""


class GradientSum:
    """Sums the gradients of some parameters over the ranks.

    Buckets are fixed from the start and sent in one order, so that all ranks send alike, and a run sums in the same order
    before a resume and after it.

    Args:
        parameters: in the order of the forward, all of one type on one device; each must get a gradient in a backward.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], all_reduce: AllReduce) -> None:
        self.all_reduce = all_reduce
        self._buckets: list[_Bucket] = []
        self._works: list[Work] = []
        self._on = False
        # A backward reaches the last layers first.
        for parameter in reversed(list(parameters)):
            if not self._buckets or self._buckets[-1].closed:
                self._buckets.append(_Bucket())
            self._buckets[-1].parameters.append(parameter)
            parameter.register_post_accumulate_grad_hook(self._on_gradient)
        self._bucket_of = {parameter: bucket for bucket in self._buckets for parameter in bucket.parameters}

    @contextmanager
    def during(self) -> Iterator[None]:
        """Context of the last backward of a step: sums the gradients accumulated so far. All ranks must enter it.

        Raises: RuntimeError if a parameter got no gradient.
        """
        self._works, self._on = [], True
        for bucket in self._buckets:
            bucket.missing = len(bucket.parameters)
        yield
        self._on = False
        if len(self._works) < len(self._buckets):
            raise RuntimeError("a parameter got no gradient in the backward that ends a step")
        for work, bucket in zip(self._works, self._buckets, strict=True):
            work.wait()
            for parameter, view in zip(bucket.parameters, bucket.views, strict=True):
                parameter.grad = view

    def _on_gradient(self, parameter: Tensor) -> None:
        if not self._on:
            return
        self._bucket_of[parameter].missing -= 1  # type: ignore[index]
        for bucket in self._buckets[len(self._works) :]:
            if bucket.missing:
                break
            self._works.append(self.all_reduce(bucket.pack()))


class _Bucket:
    """Gradients that are reduced together, in one contiguous tensor."""

    def __init__(self) -> None:
        self.parameters: list[nn.Parameter] = []
        self.missing = 0
        self._flat: Tensor | None = None
        self.views: list[Tensor] = []

    @property
    def closed(self) -> bool:
        return sum(p.numel() * p.element_size() for p in self.parameters) >= BUCKET_BYTES

    def pack(self) -> Tensor:
        if self._flat is None:
            first, sizes = self.parameters[0], [parameter.numel() for parameter in self.parameters]
            self._flat = torch.empty(sum(sizes), dtype=first.dtype, device=first.device)
            parts = zip(self.parameters, self._flat.split(sizes), strict=True)
            # In the parameters' memory order, which a parameter's gradient must have.
            self.views = [part.as_strided(p.shape, p.stride(), part.storage_offset()) for p, part in parts]
        torch._foreach_copy_(self.views, [p.grad for p in self.parameters if p.grad is not None])
        return self._flat
