"""The images that `pack` is asked for: a folder with splits, or two places, one for each domain."""

import os

from data_shards.errors import UserError, shown_name
from data_shards.packing.sources import Sources, find_pair, find_sources
from data_shards.packing.text_list import TextList
from data_shards.storage.location import expanded
from data_shards.storage.uri import is_uri

HELD_OUT = 0.1
Domain = str | TextList | None


def chosen_sources(
    source: list[str], a: str | None, b: str | None, lists: list[str], held_out: float | None
) -> Sources:
    """The sources that the command line names. Raises: UserError.

    Args:
        source: SRC, or nothing.
        lists: text files of the domains that neither `a` nor `b` names.
    """
    source, lists = [*map(expanded, source)], [*map(expanded, lists)]
    a, b = (place if place is None else expanded(place) for place in (a, b))
    place_a, place_b = _domains(a, b, lists)
    if place_a is None and place_b is None:
        if held_out is not None:
            raise UserError("--held-out: of SRC, the images in testA and testB are held out; it goes with --a and --b")
        if len(source) != 1:
            raise UserError("give SRC and DEST, or --a MONETS --b PHOTOS DEST")
        return find_sources(source[0])
    if place_a is None or place_b is None:
        raise UserError(
            f"{'--a' if a is None else '--b'}: training needs both domains; give --a MONETS --b PHOTOS DEST"
        )
    if source:
        raise UserError(f"{source[0]}: with --a and --b there is no SRC; give DEST alone")
    share = HELD_OUT if held_out is None else held_out
    if not 0 <= share < 1:
        raise UserError(f"--held-out: {share:g}; give a share from 0 to below 1")
    return find_pair(place_a, place_b, share)


def _domains(a: str | None, b: str | None, lists: list[str]) -> tuple[Domain, Domain]:
    """The places of domains A and B; lists stand for the domains that `a` and `b` do not name. Raises: UserError."""
    for file in lists:
        if not is_uri(file) and os.path.isdir(file):
            raise UserError(f"--list {shown_name(file)}: a folder; give it as --a or --b")
        if not is_uri(file) and not os.path.exists(file):
            raise UserError(f"--list {shown_name(file)}: no such file")
    left = [TextList(file) for file in lists]
    given: list[Domain] = [a, b]
    if len(left) > given.count(None):
        raise UserError(
            f"--list {shown_name(lists[given.count(None)])}: both domains are given already; a list takes the place of one"
        )
    found = [place if place is not None or not left else left.pop(0) for place in given]
    if lists and None in found:
        raise UserError(
            f"--list {shown_name(lists[0])}: the images of one domain; give those of the other by --a, --b or a second --list"
        )
    return found[0], found[1]
