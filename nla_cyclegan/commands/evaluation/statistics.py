"""Statistics of the real and of the training images in a file, for the next evaluation of the same images.

The file is an .npz: arrays by name, and `about`, JSON that identifies the images, the size and the network.
"""

import hashlib
import json
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor
from typing_extensions import TypedDict

from data_shards.errors import UserError, shown_name
from data_shards.progress import Progress
from data_shards.storage.checked import problem
from data_shards.storage.files import writing
from nla_cyclegan.metrics.gathered import FEATURES, Gathered

# Version of the computation; statistics of other versions are computed anew.
VERSION = 1
# What stands at byte 30 of a file, behind the fixed part of a zip's header: the name of its first member.
START = b"about.npy"
REAL, TRAINING = "real", "training"
# What numpy raises on a file that is damaged, or none of its archives.
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zlib.error, zipfile.BadZipFile)


class SetFields(TypedDict):
    """A set of images: a digest of their contents, their number, the names of its arrays."""

    images: str
    count: Annotated[int, Field(ge=1)]
    arrays: list[str]


class AboutFields(TypedDict):
    """What the statistics are of: the settings of the evaluation, and the sets by REAL and TRAINING."""

    how: dict[str, Any]
    sets: dict[str, SetFields]


ABOUT_SHAPE: TypeAdapter[AboutFields] = TypeAdapter(AboutFields)
Parts = Mapping[str, Callable[[], Tensor]]


class Statistics:
    """The statistics in a file, used where they belong to the images and settings of this evaluation; what is reused, and why something
    is not, is said on stderr.

    Args:
        how: the size, the seed and the network of the evaluation, as JSON values.
    """

    def __init__(self, file: Path, how: Mapping[str, Any]) -> None:
        self.file, self.how = file, {"version": VERSION, **how}
        self._about = _read_about(file)
        self._names: dict[tuple[str, tuple[Path, ...]], str] = {}
        self._new: dict[str, tuple[str, int, Parts]] = {}

    def real(self, paths: Sequence[Path], size: int, seed: int) -> Gathered | None:
        """The set of these images; None if it is not in the file."""
        found = self._found(REAL, paths)
        if found is None:
            return None
        return Gathered.restored(size, found["count"], partial(self._array, REAL), found["arrays"], seed=seed)

    def training(self, paths: Sequence[Path]) -> Tensor | None:
        """Features of these images, float32 [N, D]; None if they are not in the file."""
        return None if self._found(TRAINING, paths) is None else self._array(TRAINING, FEATURES)

    def keep(self, what: str, paths: Sequence[Path], count: int, parts: Parts) -> None:
        """Keep what has been computed of these images; `write` stores it."""
        self._new[what] = (self._name(what, paths), count, parts)

    def write(self) -> None:
        """Store the new statistics beside those that are still valid. Raises: UserError where the file cannot be written."""
        if not self._new:
            return
        sets = dict(self._about.get("sets", {})) if self._is_alike() else {}
        parts: dict[str, Callable[[], Tensor]] = {}
        for what, known in sets.items():
            parts |= {f"{what}.{name}": partial(self._array, what, name) for name in known["arrays"]}
        for what, (name, count, arrays) in self._new.items():
            sets[what] = {"images": name, "count": count, "arrays": list(arrays)}
            parts = {key: read for key, read in parts.items() if not key.startswith(f"{what}.")}
            parts |= {f"{what}.{key}": read for key, read in arrays.items()}
        about = {"how": self.how, "sets": sets}
        with writing(self.file) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            _add(archive, "about", np.array(json.dumps(about)))
            for key, read in parts.items():
                _add(archive, key, read().numpy())
        _say(f"statistics of {' and '.join(self._new)} images are kept in {self.file}")

    def _is_alike(self) -> bool:
        return self._about.get("how") == self.how

    def _found(self, what: str, paths: Sequence[Path]) -> dict[str, Any] | None:
        known = self._about.get("sets", {}).get(what)
        if known is None:
            return None
        if not self._is_alike() or known["images"] != self._name(what, paths):
            why = "other images" if self._is_alike() else "another size, seed, network or version of this program"
            _say(f"{self.file}: its statistics of {what} images belong to {why}, and are computed anew")
            return None
        try:
            for name in known["arrays"]:
                self._array(what, name)
        except UserError as error:
            _say(f"{error}; its statistics of {what} images are computed anew")
            return None
        _say(f"statistics of {known['count']} {what} images are taken from {self.file}")
        return dict(known)

    def _array(self, what: str, name: str) -> Tensor:
        """Vectors float32 [N, D]. Raises: UserError where they are damaged."""
        try:
            with np.load(self.file) as arrays:
                vectors = arrays[f"{what}.{name}"]
            if vectors.dtype != np.float32 or vectors.ndim != 2:
                raise ValueError(f"{what}.{name} is {vectors.dtype} {list(vectors.shape)}")
        except DAMAGE as error:
            raise UserError(f"{self.file}: damaged ({error})") from error
        return torch.from_numpy(vectors)

    def _name(self, what: str, paths: Sequence[Path]) -> str:
        """A digest of the contents of these images, in their order."""
        key = (what, tuple(paths))
        if key not in self._names:
            digest = hashlib.sha256()
            with Progress(f"{what} images: contents", len(paths)) as progress:
                for path in paths:
                    digest.update(_sha256(path))
                    progress.advance()
            self._names[key] = digest.hexdigest()
        return self._names[key]


def _read_about(file: Path) -> dict[str, Any]:
    """The description in a file; empty if there is none, or it is damaged. Raises: UserError for a file of something else."""
    try:
        with np.load(file) as arrays:
            about = json.loads(str(arrays["about"]))
        return dict(ABOUT_SHAPE.validate_python(about))
    except FileNotFoundError:
        return {}
    except ValidationError as error:
        reason = problem(error)
    except DAMAGE as error:
        reason = str(error)
    with file.open("rb") as opened:
        start = opened.read(30 + len(START))
    if start and not start.endswith(START):
        raise UserError(
            f"--statistics {shown_name(file)}: not a file of statistics, and would be overwritten; choose another name"
        )
    _say(f"{file}: damaged, or written by another version of this program ({reason}); it is replaced")
    return {}


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _add(archive: zipfile.ZipFile, name: str, array: np.ndarray[Any, Any]) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


def _sha256(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        # Whoever reads it says why that fails.
        return b"unreadable"
