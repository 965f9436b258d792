"""What a command's addresses are: one sweep, several sweeps, or a storage; and the page of each, as often as asked."""

from collections.abc import Sequence

from data_shards.errors import UserError
from data_shards.storage.folder import RunFolder, split_uri
from tuning.analysis.results import SWEEP, Results, Trial, read_results
from tuning.analysis.storage_index import entries
from tuning.dashboard.gallery import NAME, PREVIEWS, thumbnail
from tuning.dashboard.overview import index_page, several_page
from tuning.dashboard.page import Page
from tuning.dashboard.sweep_page import SweepPages


class Sweeps:
    """One sweep, or several to compare; trials that were decided at an earlier reading are not read again."""

    patience = 1
    """How many times as long as others it is left alone between two readings."""

    def __init__(self, uris: Sequence[str], watching: bool) -> None:
        self.uris, self.watching, self.summary = uris, watching, ""
        self._pages = SweepPages(uris[0], watching)
        self._read: list[Results] = [read_results(uri) for uri in uris]
        self._is_first = True
        self.label = ", ".join(results.folder.label for results in self._read)
        self.name = self._read[0].folder.name if len(uris) == 1 else "sweeps"

    def page(self) -> Page:
        if not self._is_first:
            self._read = [read_results(uri, _decided(known)) for uri, known in zip(self.uris, self._read, strict=True)]
        self._is_first = False
        self.summary = f"{sum(len(results.trials) for results in self._read)} trials"
        if len(self._read) == 1:
            return self._pages.page(self._read[0])
        return several_page(self._read, self.watching)

    def picture(self, trial: str, name: str) -> bytes | None:
        known = {each.name for results in self._read for each in results.trials}
        if trial not in known or not NAME.fullmatch(name):
            return None
        content = self._read[0].folder.read(f"{trial}/{PREVIEWS}/{name}")
        small = thumbnail(content) if content else None
        return small[0] if small else None


class Storage:
    """All sweeps and runs in a storage, whose folders are all listed at each reading."""

    patience = 10

    def __init__(self, uri: str, watching: bool) -> None:
        self.uri, self.watching = uri, watching
        self.folder = RunFolder(*split_uri(uri))
        self.label, self.name, self.summary = self.folder.label, f"{self.folder.name or 'storage'}-index", ""

    def page(self) -> Page:
        found = entries(self.uri)
        if not found:
            raise UserError(
                f"no sweep at {self.label}: {SWEEP} not found; give the folder of a sweep, STORAGE/NAME, or a storage with some"
            )
        self.summary = f"{len(found)} sweeps and runs"
        return index_page(self.label, found, self.watching)

    def picture(self, trial: str, name: str) -> bytes | None:
        return None


def _decided(results: Results) -> dict[str, Trial]:
    return {trial.name: trial for trial in results.trials if trial.decided}


def source_of(uris: Sequence[str], watching: bool = False) -> "Sweeps | Storage":
    """Raises: UserError when there is nothing to show."""
    if len(uris) == 1 and RunFolder(*split_uri(uris[0])).read_json(SWEEP) is None:
        return Storage(uris[0], watching)
    return Sweeps(uris, watching)
