"""An attempt at a run or a sweep: lets everything that writes for it check that it still owns the folder."""

import re
import socket
import time
from dataclasses import dataclass
from functools import cached_property

from data_shards.errors import LostRunError
from data_shards.storage.folder import RunFolder

# In the folder of a run or a sweep. One file per writer: none overwrites another's, and none is deleted: where pyarrow deletes
# an object it marks the folder with another one, which rclone's server takes for a file in the folder's place.
#   7kqzb.json    the record of an attempt, which its driver rewrites as a sign of life
#   7kqzb.ended   the attempt writes nothing more: it has ended, or has lost the folder to a later one
#   7kqzb.gone    an attempt that lost the folder has noticed it, and its processes have ended
FOLDER, RECORD, ENDED, GONE = "owner", ".json", ".ended", ".gone"
# Delays in seconds before each further look for a missing record.
LOOKS_S = (0.2, 0.5, 1.0, 2.0, 4.0)
ID = re.compile(r"(\d{1,9})([a-z]{4})", re.ASCII)
LAST = 10**9 - 1


@dataclass(frozen=True)
class Attempt:
    """One start of a driver, given as `attempt` to all that writes for it: it owns the run's or the sweep's folder, or has lost it,
    and then nothing more is written. It crosses to workers as the JSON values of its fields.

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
        """Call this right before anything is written or deleted. Costs one request, a few more if the record is not listed.

        Raises: LostRunError when another attempt has taken the folder over, this one has ended, or its record is gone.
        """
        if self == UNOWNED:
            return
        for wait_s in LOOKS_S:
            names = self.folder.files_of(FOLDER)
            if f"{self.id}{ENDED}" in names:
                break
            if f"{self.id}{RECORD}" in names:
                return
            # Some servers and network mounts do not list a file in the moment in which it is replaced.
            time.sleep(wait_s)
        else:
            raise LostRunError(
                f"{self.folder.label}: {FOLDER}/{self.id}{RECORD}, by which attempt {self.id} owns it, is not there on {socket.gethostname()}, so "
                "nothing more is written: the folder was deleted, or this machine does not share it with the one that started the run"
            )
        raise LostRunError(
            f"{self.folder.label}: attempt {self.id} has ended, or lost this folder to another one, and writes nothing "
            "more; `python -m cluster status` shows the run"
        )


UNOWNED = Attempt("0", "", "")
"""In place of an attempt where no other process uses the folder: its check always passes."""


def number_of(attempt: str) -> int:
    match = ID.fullmatch(attempt)
    assert match, attempt
    return int(match[1])
