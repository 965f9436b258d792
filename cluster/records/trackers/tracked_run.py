"""What a tracker is given about the run."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.ownership.attempt import Attempt
from data_shards.storage.folder import RunFolder

TRACKERS = "trackers.json"


@dataclass(frozen=True)
class TrackedRun:
    """A run, as the class of `observe.sinks` is constructed with it.

    Attributes:
        id: 16 hexadecimal digits, kept in the run's folder: the same whenever the run is resumed, and another one where a
            deleted run is trained anew.
        name, folder: of the run; the folder is a path or a URI without credentials.
        config: the configuration as JSON values.
        command: a command line that trains the run.
        attempt: id of this attempt at it; 0 where no attempt owns the folder.
        total_images: images seen at the end of the schedule.
    """

    id: str
    name: str
    folder: str
    config: Mapping[str, Any]
    command: str
    attempt: str
    total_images: int


def run_id(folder: RunFolder, attempt: Attempt) -> str:
    """The id of the run in this folder, written there when it is asked for first. Raises: UserError; LostRunError."""
    match folder.read_json(TRACKERS):
        case {"id": str(known)} if known:
            return known
    attempt.check()
    new = secrets.token_hex(8)
    folder.write_json(TRACKERS, {"id": new})
    return new
