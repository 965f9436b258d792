"""The score of translations: one number that sees structure, colour and content. Smaller is better; a copy of the inputs is 1.

    score = (SWD^2 / SWD0^2 + Lab^2 / Lab0^2) / 2 + w (1 - scene)       of one direction; of both the mean
    score = KID / KID0 + w (1 - scene)                                  where there are Inception features that tell the domains apart

SWD and Lab are sliced Wasserstein distances of the translations to real images of the other domain: SWD of normalised
patches, which have structure and no palette (Karras et al. 2018), Lab of CIE 1976 L*a*b* colours, which have a palette and
little structure (lab_colours.py). KID is the kernel distance of Inception features, which see both (Bińkowski et al. 2018).
It is the square of a distance, and so are the others here: of a few images no two sets are near, not even of true ones, and
squares make less of that (8 true images of 64 px at 0.8 of SWD0 are better than copies by 0.3, without squares by 0.16).
0 marks the same distance of the untouched inputs, measured at the same places: a copy has exactly 1, whatever the domains,
their sizes and their numbers of images. scene is the mean structural similarity of inputs and translations (Wang et al.
2004) at some 32 px, where what stands where is left and the brushwork is gone: without it any scene of the other domain would
do.
"""

from collections.abc import Mapping
from typing import Any

VERSION = 1
"""Version of the formula and its distances: scores of different versions are not comparable."""
CONTENT = 0.4
"""w: the term for a translation that keeps nothing of its input."""
PATCHES, KERNEL = ("swd", "lab"), ("kid",)
"""The distances that a score may have."""
DIRECTIONS = ("A2B", "B2A")


def score(
    distances: Mapping[str, float], untouched: Mapping[str, float], scene: float, *, content: float = CONTENT
) -> float | None:
    """The score of one direction; None where one of the untouched inputs' distances is not above 0.

    Args:
        distances: of the translations: `swd` and `lab`, or `kid`, in any unit.
        untouched: those of the inputs.
        scene: mean `similarity.scene_ssim` of inputs and translations.
        content: w.
    """
    if min(untouched.values()) <= 0:
        return None
    ratios = {name: distance / untouched[name] for name, distance in distances.items()}
    squared = [ratio if name in KERNEL else ratio**2 for name, ratio in ratios.items()]
    return sum(squared) / len(squared) + content * (1 - scene)


def definition(names: tuple[str, ...]) -> str:
    """The name of a score of these distances in records."""
    return f"{'+'.join(names)} {VERSION}"


def names_in(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The distances that the score of a record is made of: KID where that of the inputs is recorded, which is significant then."""
    return KERNEL if all(f"inputs_kid_{direction}" in record for direction in DIRECTIONS) else PATCHES


def scores_of(record: Mapping[str, Any], names: tuple[str, ...], *, content: float = CONTENT) -> dict[str, float]:
    """`score_A2B`, `score_B2A` and their mean `score` of what is recorded as `swd_A2B`, `inputs_swd_A2B`, `scene_A2B` and so on.

    Empty where a part is missing, and where a direction has none.
    """
    found = {}
    for direction in DIRECTIONS:
        try:
            distances, untouched = (
                {name: record[f"{prefix}{name}_{direction}"] for name in names} for prefix in ("", "inputs_")
            )
            of_direction = score(distances, untouched, record[f"scene_{direction}"], content=content)
        except KeyError:
            return {}
        if of_direction is None:
            return {}
        found[f"score_{direction}"] = of_direction
    return found | {"score": sum(found.values()) / len(found)}
