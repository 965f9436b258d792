"""Writing a file whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nla_cyclegan.errors import InputError


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; renamed to it at the end, removed if anything fails.

    Raises: InputError if the file cannot be written (OSError or ValueError from within, Pillow's for an unknown suffix).
    """
    try:
        # The suffix stays last: Pillow tells the format by it.
        temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be written ({error})") from error
