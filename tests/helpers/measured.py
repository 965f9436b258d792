"""Sets of images in memory, measured as `evaluate` and validation measure theirs."""

from collections.abc import Callable

from torch import Tensor

from nla_cyclegan.metrics.gathered import Gathered
from nla_cyclegan.metrics.lab_colours import COLOUR
from nla_cyclegan.metrics.pairs import Pairs
from nla_cyclegan.metrics.sampled import Kind, chunks, sample
from nla_cyclegan.metrics.scores import Evaluation, evaluate_sets
from nla_cyclegan.metrics.sliced_wasserstein import STRUCTURE, SlicedWasserstein


def distances_of(kind: Kind, a_NCHW: Tensor, b_NCHW: Tensor, seed: int = 0) -> dict[int, float]:
    """The distance of two sets of uint8 images [N, 3, H, W] at each scale, by its shorter side in pixels."""
    return {
        side: kind.distance(*(sample(kind, images, level, seed) for images in (a_NCHW, b_NCHW)), level, seed)
        for level, side in enumerate(kind.sides(min(a_NCHW.shape[-2:])))
    }


def sliced_wasserstein(a_NCHW: Tensor, b_NCHW: Tensor, *, seed: int = 0) -> SlicedWasserstein:
    levels = distances_of(STRUCTURE, a_NCHW, b_NCHW, seed)
    return SlicedWasserstein(sum(levels.values()) / len(levels), levels)


def lab_distance(a_NCHW: Tensor, b_NCHW: Tensor) -> float:
    levels = distances_of(COLOUR, a_NCHW, b_NCHW)
    return sum(levels.values()) / len(levels)


def gathered_of(images_NCHW: Tensor, network: Callable[[Tensor], Tensor] | None = None) -> Gathered:
    """A set of square images; `network` gives their features."""
    found = Gathered(images_NCHW.shape[-1], len(images_NCHW), network)
    for chunk in chunks(images_NCHW):
        found.add(chunk)
    found.finish()
    return found


def evaluate_images(
    inputs: Tensor, translations: Tensor, real: Tensor, network: Callable[[Tensor], Tensor] | None = None
) -> Evaluation:
    """Sets of square images of one size; translation n belongs to input n, the real ones to none."""
    of_inputs, of_translations = Pairs(), Pairs()
    of_inputs.add(inputs, inputs)
    of_translations.add(translations, inputs)
    sets = (gathered_of(each, network) for each in (inputs, translations, real))
    return evaluate_sets(*sets, of_inputs, of_translations)
