"""The check for losses and gradients that are not finite."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from cluster.ranks.clock import Clock
from cluster.ranks.world import World
from cluster.settings.config import RunConfig
from data_shards.errors import GpuMemoryError, NonFiniteLossError, counted
from data_shards.memory import available_bytes, total_bytes

# cuBLAS, cuDNN, Triton and the CPU have their own errors for it.
OUT_OF_MEMORY = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "DefaultCPUAllocator")


class NonFiniteGuard:
    """Stops all ranks together when a loss or a gradient of any of them is NaN or infinite.

    The step itself updates nothing from then on (see `TrainingStep.finite`), so the flag of a step can be read while the
    next one runs, and the device never waits for work. It is read at once where the run is about to write a record, a
    checkpoint or an evaluation, which must not come from such a step.

    Args:
        every: images seen between two records, checkpoints, ...; None for those that are never written.
        precision: the run's, `step.precision`.
    """

    def __init__(self, world: World, clock: Clock, every: Iterable[int | None], precision: str) -> None:
        self.world, self.clock = world, clock
        self.remedy = "" if precision in ("fp32", "fp64") else " or use --step.precision fp32"
        self.every = [images for images in every if images]
        self._unread: _Reading | None = None

    def watch(self, losses: Mapping[str, Tensor], finite: Tensor, images_seen: int) -> None:
        """Check a step that ended at these images; all ranks call it alike.

        Args:
            losses: this rank's share of them.
            finite: whether everything was, on all ranks.

        Raises: NonFiniteLossError, on all ranks.
        """
        reading = _Reading(losses, finite, images_seen - self.clock.batch)
        self.settle()
        self._unread = reading
        if any(self.clock.due(every, images_seen) for every in self.every):
            self.settle()

    def settle(self) -> None:
        """Check the last step that was not read yet, if any. Raises: NonFiniteLossError, on all ranks."""
        reading, self._unread = self._unread, None
        if reading is not None:
            losses, finite = reading.values()
            if not finite:
                self._stop(losses, reading.images_seen)

    def _stop(self, local: dict[str, float], images_seen: int) -> None:
        bad = {name: value for name, value in local.items() if not math.isfinite(value)}
        ranks = {rank: found for rank, found in enumerate(self.world.gather(bad)) if found}
        named = "; ".join(
            f"rank {rank}: {', '.join(f'{k} = {v}' for k, v in found.items())}" for rank, found in ranks.items()
        )
        raise NonFiniteLossError(
            f"the loss is not finite after {counted(images_seen, 'image')} ({named or 'a gradient, though no loss itself'}); no "
            f"weight was updated. Lower --optimizer.lr{self.remedy}, under another --name"
        )


@contextmanager
def out_of_memory_explained(config: RunConfig, device: torch.device, pairs: int = 0) -> Iterator[None]:
    """Around what trains or evaluates. Raises: GpuMemoryError, with what to lower, where it is out of memory.

    Args:
        pairs: image pairs of the step inside; 0: something else is inside.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        what, otherwise = (
            f"a step of {counted(pairs, 'image pair')} (of data.global_batch {config.data.global_batch})",
            "",
        )
        if not pairs:
            what = f"what a run has beside its steps (networks, evaluations at data.load_size {config.data.load_size})"
            otherwise = ", or smaller networks"
        micro_batch = config.step.micro_batch or "none"
        raise GpuMemoryError(
            f"the {'GPU' if device.type == 'cuda' else 'machine'} has too little memory for {what} with step.micro_batch {micro_batch}, at "
            f"{config.data.crop_size} px and {config.step.precision}: {_room(config, device)}; give a smaller --step.micro_batch, which "
            f"changes no result{otherwise}"
        ) from error


def _room(config: RunConfig, device: torch.device) -> str:
    on_gpu = device.type == "cuda"
    sizes = torch.cuda.mem_get_info() if on_gpu else (available_bytes(), total_bytes())
    free, total = (size / 2**30 for size in sizes)
    share = config.scaling.gpus_per_worker
    limit = f", {share * total:.1f} GiB are this worker's (scaling.gpus_per_worker {share:g})"
    return f"{free:.1f} of {total:.1f} GiB are free{limit if on_gpu and share < 1 else ''}"


def _out_of_memory(error: BaseException | None) -> bool:
    """Whether any error in the chain is out-of-memory: a CUDA graph's capture that runs out of memory fails again when it ends."""
    found = False
    while error and not found:
        found = isinstance(error, MemoryError) or any(text in str(error) for text in OUT_OF_MEMORY)
        error = error.__context__
    return found


class _Reading:
    """Scalars being copied from the device; only `values` waits for them."""

    def __init__(self, losses: Mapping[str, Tensor], finite: Tensor, images_seen: int) -> None:
        self.images_seen, self._names = images_seen, list(losses)
        scalars = torch.stack([*losses.values(), finite.to(next(iter(losses.values())).dtype)])
        # A copy to pinned memory is asynchronous: the host waits for the event before it reads.
        self._scalars = scalars.to("cpu", non_blocking=True)
        self._arrived = torch.cuda.Event() if scalars.is_cuda else None
        if self._arrived:
            self._arrived.record()

    def values(self) -> tuple[dict[str, float], bool]:
        if self._arrived:
            self._arrived.synchronize()
        *losses, finite = self._scalars.tolist()
        return dict(zip(self._names, losses, strict=True)), bool(finite)
