"""Names of checkpoints: the images seen, and the writer."""

import re
import secrets
from collections.abc import Container, Iterable
from dataclasses import dataclass
from itertools import count
from string import ascii_lowercase
from typing import Any

# Images seen; which attempt at the run wrote it, and which of its worker groups. Before attempts had names: a number.
NAME = re.compile(r"checkpoint_(\d{1,18})(?:-(\d{1,9})(?:([a-z]{4})(\d{1,9})([a-z]{2}))?)?", re.ASCII)


@dataclass(frozen=True, order=True)
class Writer:
    """The writer of checkpoints with one suffix: a worker group of an attempt. Later writers compare greater.

    The letters are random, so that two concurrent writers never write into one folder.
    """

    number: int
    letters: str
    group: int
    group_letters: str

    @property
    def attempt(self) -> str:
        return f"{self.number}{self.letters}"

    def __str__(self) -> str:
        return f"{self.attempt}{self.group}{self.group_letters}"


def new_writer(attempt: str, names: Iterable[str]) -> Writer:
    """The writer for a new worker group of the attempt, given the names of existing checkpoints."""
    groups = [writer.group for name in names if (writer := writer_of(name)) and writer.attempt == attempt]
    group_letters = "".join(secrets.choice(ascii_lowercase) for _ in range(2))
    return Writer(int(attempt[:-4]), attempt[-4:], max(groups, default=0) + 1, group_letters)


def name_of(images_seen: int, attempt: int | str = 1) -> str:
    suffix = f"-{attempt}" if attempt != 1 else ""
    return f"checkpoint_{images_seen:012d}{suffix}"


def free_name(images_seen: int, taken: Container[str]) -> str:
    """A name for a new checkpoint that is not taken: files of a damaged checkpoint must not be mixed with new ones."""
    attempts = (name_of(images_seen, attempt) for attempt in count(1))
    return next(name for name in attempts if name not in taken)


def images_of(name: str) -> int:
    """Images seen at a checkpoint, from its name."""
    return int(_match(name)[1])


def writer_of(name: str) -> Writer | None:
    """The writer of the checkpoint of that name; None for one of an earlier version."""
    _, number, letters, group, group_letters = _match(name).groups()
    return Writer(int(number), letters, int(group), group_letters) if letters else None


def age(name: str) -> tuple[Any, ...]:
    """A key that sorts checkpoints' names from the oldest to the newest."""
    writer, match = writer_of(name), _match(name)
    return int(match[1]), writer is not None, writer or int(match[2] or 1)


def _match(name: str) -> re.Match[str]:
    match = NAME.fullmatch(name)
    assert match, name
    return match
