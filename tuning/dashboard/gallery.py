"""The newest preview grid of the best trials, small enough to live inside the page."""

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image

from data_shards.storage.folder import RunFolder
from tuning.analysis.results import READERS, Trial

PREVIEWS = "previews"
# Pictures of so many trials; noisy ones of this size are some 130 kB each.
SHOWN = 12
WIDTH, HEIGHT, QUALITY = 720, 900, 70


@dataclass(frozen=True)
class Picture:
    """The preview grid of a trial, as a data URI."""

    trial: Trial
    data: str
    width: int
    height: int


def pictures(folder: RunFolder, trials: Sequence[Trial]) -> list[Picture]:
    """Of the first trials that have any, in their order. Raises: UserError when storage does not answer."""
    candidates = [trial for trial in trials if trial.evaluations][: 2 * SHOWN]
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(lambda trial: _picture(folder, trial), candidates))
    return [picture for picture in found if picture][:SHOWN]


def thumbnail(content: bytes) -> tuple[str, int, int] | None:
    """Data URI, width and height of a smaller version of a picture; None where it is none."""
    try:
        with Image.open(io.BytesIO(content)) as opened:
            picture = opened.convert("RGB")
    # Damaged bytes make Pillow's readers raise nearly anything (SyntaxError, ValueError), and the page can do without.
    except Exception:
        return None
    picture.thumbnail((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}", picture.width, picture.height


def _picture(folder: RunFolder, trial: Trial) -> Picture | None:
    names = sorted(name for name in folder.files_of(f"{trial.name}/{PREVIEWS}") if name.endswith(".png"))
    content = folder.read(f"{trial.name}/{PREVIEWS}/{names[-1]}") if names else None
    small = thumbnail(content) if content else None
    return Picture(trial, *small) if small else None
