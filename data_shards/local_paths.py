"""Actions for argparse: options and arguments that are files and folders of this machine. They raise UserError."""

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from data_shards.errors import UserError, shown_name


class LocalPath(argparse.Action):
    """A path, with `~` expanded; a file:// URI as the path that it names.

    Raises: UserError for an empty text, another URI, or the home folder of an unknown user.
    """

    # What to do with another URI, for the message.
    advice = ""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        given: Sequence[str] = values if isinstance(values, list) else [values] if values is not None else []
        try:
            paths = [self.path_of(text) for text in given]
        except UserError as error:
            raise UserError(f"{option or self.metavar or self.dest} {error}") from error
        setattr(namespace, self.dest, paths if isinstance(values, list) else next(iter(paths), None))

    def path_of(self, text: str) -> Path:
        # Imported here, because `--help` does not need pyarrow.
        from data_shards.storage.location import expanded, shown

        if "://" not in text:
            return Path(expanded(text))
        # No query, no fragment: in a path ? and # stand for themselves.
        named = re.fullmatch("file://(?:localhost)?(/.*)", text, re.DOTALL)
        if named is None:
            raise UserError(f"{shown_name(shown(text))}: expected a path of this machine, not a URI{self.advice}")
        return Path(unquote(named[1]))


class Result(LocalPath):
    """A file or a folder to be written. Raises: UserError where nothing can be written: before hours of work, not after."""

    def path_of(self, text: str) -> Path:
        path = super().path_of(text)
        whole = path.absolute()
        folder = whole if whole.is_dir() else next(each for each in whole.parents if os.path.lexists(each))
        if not folder.is_dir():
            raise UserError(
                f"{shown_name(text)}: cannot be written, {shown_name(folder)} is not a folder; name another"
            )
        if not os.access(folder, os.W_OK):
            raise UserError(
                f"{shown_name(text)}: cannot be written (no permission in {shown_name(folder)}); choose another place"
            )
        return path


class LocalFile(Result):
    """A file to be written. Raises: UserError, also for a folder, a device or a pipe."""

    def path_of(self, text: str) -> Path:
        from data_shards.storage.files import is_special

        path = LocalPath.path_of(self, text)
        if text.endswith(os.sep) or path.is_dir():
            raise UserError(f"{shown_name(text)}: cannot be written (Is a directory); name a file in it")
        # Before the folder, which is root's alone for a device.
        if is_special(path):
            raise UserError(f"{shown_name(text)}: cannot be written (not a regular file); name another")
        return super().path_of(text)


class InputPath(LocalPath):
    """A file or folder of images to be translated."""

    advice = "; `python -m cluster translate` reads and writes URIs"


class ResultFolder(Result):
    """A folder to write to. Raises: UserError, also for a file."""

    def path_of(self, text: str) -> Path:
        path = super().path_of(text)
        if path.exists() and not path.is_dir():
            raise UserError(f"{shown_name(text)}: cannot be written, it is a file; name a folder")
        return path
