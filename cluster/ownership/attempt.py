"""An attempt at a run or a sweep, seen by everything that writes for it: whether it still owns the folder."""

import re
from collections.abc import Container
from dataclasses import dataclass
from functools import cached_property

from data_shards.errors import LostRunError
from data_shards.storage.folder import RunFolder

# In the folder of a run or a sweep. One file a writer: nobody overwrites another's.
#   7kqzb.json    the record of an attempt, which its driver rewrites as a sign of life, and deletes when it ends
#   7kqzb.ended   the attempt writes nothing more: it has ended, or has lost the folder to a later one
FOLDER, RECORD, ENDED = "owner", ".json", ".ended"
ID = re.compile(r"(\d{1,9})([a-z]{4})", re.ASCII)


@dataclass(frozen=True)
class Attempt:
    """One start of a driver. It crosses to workers as the JSON values of its fields.

    Attributes:
        id: a number, greater than those of earlier attempts, and four random letters: `7kqzb`.
        storage, name: the folder that it owns, the run's or that of the run's sweep.
    """

    id: str
    storage: str
    name: str

    @cached_property
    def folder(self) -> RunFolder:
        return RunFolder(self.storage, self.name)

    @property
    def number(self) -> int:
        return number_of(self.id)

    def check(self) -> None:
        """To be called right before anything is written or deleted. One request.

        Raises: LostRunError when another attempt has taken the folder over, or this one has ended.
        """
        self.check_among(self.folder.files_of(FOLDER))

    def check_among(self, names: Container[str]) -> None:
        """As `check`, where the files of FOLDER are known."""
        if f"{self.id}{ENDED}" in names or f"{self.id}{RECORD}" not in names:
            raise LostRunError(
                f"{self.folder.label}: attempt {self.id} has ended, or lost this folder to another one, and writes nothing "
                "more; `python -m cluster status` shows the run"
            )


def id_of(attempt: Attempt | None) -> str:
    """The id for the names of files; 0 where no attempt owns the folder."""
    return attempt.id if attempt else "0"


def number_of(attempt: str) -> int:
    match = ID.fullmatch(attempt)
    assert match, attempt
    return int(match[1])
