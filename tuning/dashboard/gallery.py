"""The preview grids of trials, scaled down to be embedded in the page or served beside it."""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from PIL import Image

from data_shards.storage.folder import RunFolder
from tuning.analysis.groups import grouped, ranked_groups
from tuning.analysis.results import READERS, Trial

PREVIEWS = "previews"
NAME = re.compile(r"images_(\d+)\.png")
# Of the best trials this many over their training, and of the next ones the newest alone.
OVER_TIME, STEPS, NEWEST = 5, 8, 7
# Number of trials with pictures when a server sends them on demand.
SERVED = 60
WIDTH, HEIGHT = 720, 900
# All pictures together keep the page under 10 MB with plotly's 4.8.
BYTES = 3_000_000
TRIES = ((1.0, 70), (0.7, 50), (0.45, 40), (0.3, 30))


@dataclass(frozen=True)
class Picture:
    """A preview grid of a trial."""

    images: int
    """Seen when it was made."""
    source: str
    """A data URI, or the address at the page's server."""
    width: int | None = None
    """Pixels, as `height`; None where it has not been read."""
    height: int | None = None


def order(trials: Sequence[Trial], collapsed: Sequence[str]) -> list[Trial]:
    """Trials by rank, the best of each group before the second of any, so that repeats come later."""
    groups = [
        sorted(group.trials, key=lambda trial: trial.score) for group, _ in ranked_groups(grouped(trials, collapsed))
    ]
    return [trial for level in zip_longest(*groups) for trial in level if trial and trial.evaluations]


def embedded(folder: RunFolder, trials: Sequence[Trial]) -> dict[int, list[Picture]]:
    """Number -> pictures in the order of their images, of the first trials that have any.

    Raises: UserError when storage fails.
    """
    found: dict[int, list[Picture]] = {}
    with ThreadPoolExecutor(READERS) as pool:
        listed = _listed(folder, trials[: 2 * (OVER_TIME + NEWEST)], pool)[: OVER_TIME + NEWEST]
        wanted = [
            (trial, name)
            for place, (trial, names) in enumerate(listed)
            for name in _spread(names, STEPS if place < OVER_TIME else 1)
        ]
        most = BYTES // max(1, len(wanted))
        read = pool.map(
            lambda each: thumbnail(folder.read(f"{each[0].name}/{PREVIEWS}/{each[1]}") or b"", most), wanted
        )
        for (trial, name), small in zip(wanted, read, strict=True):
            if small:
                address = f"data:image/webp;base64,{base64.b64encode(small[0]).decode()}"
                found.setdefault(trial.number, []).append(Picture(_images(name), address, *small[1:]))
    return found


def served(folder: RunFolder, trials: Sequence[Trial], known: Mapping[int, list[Picture]]) -> dict[int, list[Picture]]:
    """Trial number -> its pictures, as addresses on the server; pictures of decided trials are listed once."""
    found = {trial.number: known[trial.number] for trial in trials[:SERVED] if trial.decided and trial.number in known}
    with ThreadPoolExecutor(READERS) as pool:
        for trial, names in _listed(folder, [each for each in trials[:SERVED] if each.number not in found], pool):
            found[trial.number] = [Picture(_images(name), f"pictures/{trial.name}/{name}") for name in names]
    return found


def thumbnail(content: bytes, most: int = BYTES) -> tuple[bytes, int, int] | None:
    """A WebP picture of at most so many bytes, if it can be, its width and height; None for bytes that are no picture."""
    try:
        with Image.open(io.BytesIO(content)) as opened:
            picture = opened.convert("RGB")
    # Pillow raises nearly any type for damaged bytes (SyntaxError, ValueError), and the page works without the picture.
    except Exception:
        return None
    data = b""
    for scale, quality in TRIES:
        picture.thumbnail((round(WIDTH * scale), round(HEIGHT * scale)), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", quality=quality)
        data = buffer.getvalue()
        if len(data) <= most:
            break
    return data, picture.width, picture.height


def _listed(folder: RunFolder, trials: Sequence[Trial], pool: ThreadPoolExecutor) -> list[tuple[Trial, list[str]]]:
    """Those that have previews, with the names of these."""
    files = pool.map(lambda trial: folder.files_of(f"{trial.name}/{PREVIEWS}"), trials)
    named = [sorted(filter(NAME.fullmatch, names)) for names in files]
    return [each for each in zip(trials, named, strict=True) if each[1]]


def _spread(names: Sequence[str], most: int) -> list[str]:
    """At most `most` of the names, evenly spaced, including the last."""
    last = len(names) - 1
    return [names[round(place)] for place in np.linspace(last, 0, min(most, len(names)))[::-1]]


def _images(name: str) -> int:
    return int(name.removeprefix("images_").removesuffix(".png"))
