"""The sources of a page: one sweep, several sweeps, or a storage."""

import hashlib
from collections.abc import Sequence
from functools import cache

from pydantic_core import to_json

from data_shards.errors import counted, say_warning
from data_shards.storage import locate
from data_shards.storage.files import list_folder, read_json
from data_shards.storage.folder import RunFolder, split_uri
from data_shards.storage.uri import split_options
from nla_cyclegan.weights.stored_score import SWEEP
from tuning.analysis.results import Results, no_sweep, read_results
from tuning.analysis.storage_index import Entry, entries
from tuning.dashboard.gallery import NAME, PREVIEWS, thumbnail
from tuning.dashboard.overview import index_page, several_page
from tuning.dashboard.page import Page
from tuning.dashboard.sweep_page import SweepPages


class Sweeps:
    """One sweep, or several to compare."""

    patience = 1
    """Factor on the interval between two readings."""

    def __init__(self, uris: Sequence[str], watching: bool) -> None:
        self.uris, self.watching = uris, watching
        self.folders = [RunFolder(*split_uri(uri)) for uri in uris]
        self.label = ", ".join(folder.label for folder in self.folders)
        self.name = self.folders[0].name if len(uris) == 1 else "sweeps"
        # Each once, however often the records are read.
        self._warn = cache(say_warning)
        self._pages = SweepPages(uris[0], watching, self._warn)
        self._read: list[Results] = []

    @property
    def summary(self) -> str:
        return counted(sum(len(results.trials) for results in self._read), "trial")

    def update(self) -> str:
        """Read the records, but for trials that were decided at an earlier reading. Returns: their version.

        Raises: UserError.
        """
        known = [{each.name: each for each in results.trials if each.decided} for results in self._read]
        self._read = [
            read_results(uri, known[place] if known else {}, self._warn) for place, uri in enumerate(self.uris)
        ]
        return _hash([(results.about, results.trials) for results in self._read])

    def page(self, version: str) -> Page:
        """Of what was read last. Raises: UserError when storage fails."""
        if len(self._read) > 1:
            return several_page(self._read, version, self.watching)
        return self._pages.page(self._read[0], version)

    def picture(self, trial: str, name: str) -> bytes | None:
        """A preview as WebP; None where there is none. Raises: UserError when storage fails."""
        if trial not in {each.name for each in self._read[0].trials} or not NAME.fullmatch(name):
            return None
        content = self.folders[0].read(f"{trial}/{PREVIEWS}/{name}")
        small = thumbnail(content) if content else None
        return small[0] if small else None


class Storage:
    """All sweeps and runs in a storage, whose folders are all listed at each reading."""

    patience = 10

    def __init__(self, uri: str, watching: bool) -> None:
        self.uri, self.watching, self.label = uri, watching, split_options(locate(uri).uri)[0]
        self.name = f"{split_uri(uri)[1] or 'storage'}-index"
        self._found: list[Entry] = []
        self._warn = cache(say_warning)

    @property
    def summary(self) -> str:
        kinds = [each.kind for each in self._found]
        return " and ".join(counted(kinds.count(kind), kind) for kind in ("sweep", "run") if kind in kinds)

    def update(self) -> str:
        self._found = entries(self.uri, self._warn)
        if not self._found:
            raise no_sweep(self.label, list_folder(locate(self.uri)), ", or a storage with some")
        return _hash(self._found)

    def page(self, version: str) -> Page:
        return index_page(self.label, self._found, version, self.watching)

    def picture(self, trial: str, name: str) -> bytes | None:
        return None


def _hash(records: object) -> str:
    return hashlib.sha256(to_json(records)).hexdigest()[:16]


def source_of(uris: Sequence[str], watching: bool = False) -> Sweeps | Storage:
    """Raises: UserError when storage does not answer."""
    if len(uris) == 1 and read_json(locate(uris[0]), SWEEP) is None:
        return Storage(uris[0], watching)
    return Sweeps(uris, watching)
