"""The newest preview grids of the best trials, scaled down to be embedded in the page."""

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image

from data_shards.storage.folder import RunFolder
from tuning.analysis.results import READERS, Trial

PREVIEWS = "previews"
# Number of pictures; noisy ones of this size take about 130 kB each.
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
    """The pictures of the first trials that have any, in their order. Raises: UserError when storage fails."""
    candidates = [trial for trial in trials if trial.evaluations][: 2 * SHOWN]
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(lambda trial: _picture(folder, trial), candidates))
    return [picture for picture in found if picture][:SHOWN]


def thumbnail(content: bytes) -> tuple[str, int, int] | None:
    """Data URI, width and height of a scaled-down picture; None for bytes that are no picture."""
    try:
        with Image.open(io.BytesIO(content)) as opened:
            picture = opened.convert("RGB")
    # Pillow raises nearly any type for damaged bytes (SyntaxError, ValueError), and the page works without the picture.
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
