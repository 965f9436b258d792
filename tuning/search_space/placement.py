"""Where the non-local blocks stand in a generator: names that mean a set of block indices for any number of blocks."""

from typing import Any

PLACED, BLOCKS = "model.generator.nonlocal_blocks", "model.generator.num_blocks"
NAMES = ("none", "early", "middle", "late", "several")


def placement(name: str, num_blocks: int) -> list[int]:
    """The blocks that are non-local: none, the first, the one in the middle, the last, all three of them."""
    three = (0, num_blocks // 2, num_blocks - 1) if num_blocks else ()
    chosen = {"none": (), "early": three[:1], "middle": three[1:2], "late": three[2:], "several": three}
    return sorted(set(chosen[name]))


def resolved(value: Any, num_blocks: Any) -> Any:
    """The set that a name stands for; anything else as it is."""
    named = isinstance(value, str) and value in NAMES and isinstance(num_blocks, int)
    return placement(value, num_blocks) if named else value


def placements(candidates: list[Any], num_blocks: int) -> list[Any]:
    """Candidates without names, each set once: in a small network several names mean the same."""
    sets = [resolved(candidate, num_blocks) for candidate in candidates]
    return [blocks for place, blocks in enumerate(sets) if blocks not in sets[:place]]
