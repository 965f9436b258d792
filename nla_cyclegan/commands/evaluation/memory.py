"""The memory that `evaluate` needs at a size: checked before the start, and explained when it runs out."""

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from data_shards.errors import UserError
from data_shards.memory import available_bytes
from nla_cyclegan.commands.device import first_sentence, out_of_memory
from nla_cyclegan.metrics.sampled import PIXELS
from nla_cyclegan.metrics.sliced_wasserstein import COARSEST
from nla_cyclegan.model.config import GeneratorConfig, fitting_side

# Bytes for each pixel of a batch: images, their pyramids in fp32, their similarities in fp64.
METRICS_BYTES = 400
# Bytes for each pixel and channel of a generator's first layer, for its activations in fp32.
NETWORK_BYTES = 40
# Vectors of two sets at one scale, and their projections.
DISTANCES_BYTES = 400e6


def needed_bytes(size: int, config: GeneratorConfig | None, longest: float) -> float:
    """Estimate of the memory for images of a size, beside the program's own.

    Args:
        config: of the generators, which translate one image at a time; None: there are none.
        longest: ratio of the pixels of the largest image to those of a square; see `longest_of`.
    """
    area = longest * size**2
    network = NETWORK_BYTES * config.base_channels * area if config else 0.0
    return METRICS_BYTES * max(PIXELS, area) + network + DISTANCES_BYTES


def check_memory(size: int, config: GeneratorConfig | None, longest: float) -> None:
    """Raises: UserError where this size does not fit into the free memory, with a size that does."""
    free = available_bytes()
    if needed_bytes(size, config, longest) > free:
        raise UserError(_too_little(size, config, longest, free))


@contextmanager
def memory_explained(size: int, config: GeneratorConfig | None, longest: float) -> Iterator[None]:
    """An error inside about memory, or about space for temporary files, becomes a UserError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        whose = out_of_memory(error)
        if whose is None:
            raise
        if whose == "machine":
            raise UserError(_too_little(size, config, longest, available_bytes())) from error
        raise UserError(
            f"the device is out of memory at {size} px ({first_sentence(error)}); try --size {fitting_side(size // 2)}, or "
            "--device cpu"
        ) from error
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UserError(
            f"{tempfile.gettempdir()}: no room for temporary files; make some, or name another folder in TMPDIR"
        ) from error


def _too_little(size: int, config: GeneratorConfig | None, longest: float, free: float) -> str:
    fitting = size
    while fitting >= 4 and needed_bytes(fitting, config, longest) > free:
        fitting = fitting_side(fitting - 1)
    fits = f"--size {fitting} fits" if fitting >= COARSEST else "no size fits: end other programs"
    # Memory may run out although the estimate fits.
    advice = fits if fitting < size else "give a smaller --size, or end other programs"
    return (
        f"too little memory at {size} px: about {needed_bytes(size, config, longest) / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are "
        f"free; {advice}"
    )
