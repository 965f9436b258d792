"""The files that are left out of an input, by reason, and the messages about them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from data_shards.errors import counted, shown_name

NAMED = 5
IRREGULAR = "no regular files"
# Files that often hold the images of a dataset: archives, tables, arrays, films.
CONTAINERS = (
    *(".zip", ".tar", ".tgz", ".gz", ".rar", ".7z", ".parquet", ".arrow", ".tfrec", ".tfrecord", ".tfrecords", ".mdb"),
    *(".npz", ".npy", ".mat", ".h5", ".hdf5", ".mp4", ".mov", ".avi", ".mkv", ".webm"),
)


@dataclass
class LeftOut:
    """Names of files that are left out because they are no images of the user's.

    Attributes:
        lines: line numbers in a text file that name no regular file.
    """

    hidden: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    drawn: list[str] = field(default_factory=list)
    translated: list[str] = field(default_factory=list)
    irregular: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    below: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)

    @property
    def remarks(self) -> list[str]:
        """One line for each reason with files."""
        kinds = Counter(Path(name).suffix.lower() or "without a suffix" for name in self.others)
        counted = [f"{count} {kind}" for kind, count in kinds.most_common()]
        reasons = {
            "hidden, or in a hidden, thumbnail or system folder": (self.hidden, []),
            "no images": (self.others, counted),
            "drawn by this project (attention, grids)": (self.drawn, self.drawn),
            "written by `translate`, among other images (name their own folder to take them)": (
                self.translated,
                self.translated,
            ),
            IRREGULAR: (self.irregular, self.irregular),
            "cannot be read": (self.unreadable, self.unreadable),
            "in sub-folders, by --no-recursive": (self.below, []),
        }
        where = {IRREGULAR: f", line {_some(map(str, self.lines))}" if self.lines else ""}
        lines = [
            f"{reason}: {_counted(len(names), 'file', of)}{where.get(reason, '')}"
            for reason, (names, of) in reasons.items()
            if names
        ]
        closed = [f"cannot be opened: {_counted(len(self.closed), 'folder', self.closed)}"] if self.closed else []
        return lines + closed

    @property
    def instead(self) -> str:
        """What there is where no image is: the end of a message that says so."""
        lines = "".join(f"; left out: {remark}" for remark in self.remarks)
        holds_images = any(name.lower().endswith(CONTAINERS) for name in self.others)
        return f"{lines}; write the images in such files to files of their own first" if holds_images else lines

    @property
    def unseen(self) -> int:
        """How many folders and files could not be opened; they may hold images of the user's."""
        return len(self.closed) + len(self.unreadable)

    def add(self, other: "LeftOut") -> None:
        for name, found in vars(other).items():
            getattr(self, name).extend(found)


def _counted(count: int, what: str, details: Iterable[str]) -> str:
    named = _some(map(shown_name, details))
    return counted(count, what) + (f" ({named})" if named else "")


def _some(details: Iterable[str]) -> str:
    names = list(details)
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
