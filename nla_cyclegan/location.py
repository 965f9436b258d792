"""Where something lies: a path of this machine, or a URI that pyarrow opens."""

import re
from pathlib import Path

from pyarrow import ArrowException, fs

from data_shards.errors import UserError


def open_location(path: str) -> tuple[fs.FileSystem, str]:
    """A path (made absolute) or a URI (s3://bucket/run, gs://...) -> its filesystem and the path on it.

    Raises: UserError if the URI cannot be opened.
    """
    if "://" not in path:
        return fs.LocalFileSystem(), str(Path(path).expanduser().absolute())
    try:
        filesystem, location = fs.FileSystem.from_uri(path)
    except (ArrowException, OSError, ValueError) as error:
        shown = _without_credentials(path)
        reason = _first_line(error).replace(path, shown)
        raise UserError(f"{shown}: cannot be opened as a storage URI ({reason})") from error
    return filesystem, location.rstrip("/")


def read_file(filesystem: fs.FileSystem, file: str) -> bytes | None:
    """Its content, None where there is none. Raises: UserError when storage does not answer."""
    try:
        with filesystem.open_input_stream(file) as stream:
            return bytes(stream.read())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({_first_line(error)})") from error


def kind_of(filesystem: fs.FileSystem, location: str) -> fs.FileType:
    """A file, a folder, or nothing. Raises: UserError when storage does not answer."""
    try:
        return filesystem.get_file_info(location).type
    except OSError as error:
        raise UserError(f"{location}: storage does not answer ({_first_line(error)})") from error


def list_folder(filesystem: fs.FileSystem, folder: str) -> list[fs.FileInfo]:
    """What lies in it; nothing where there is none. Raises: UserError when it cannot be listed."""
    try:
        return filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({_first_line(error)})") from error


def _without_credentials(uri: str) -> str:
    """No query and no user part of the URI: either may hold some."""
    return re.sub(r"//[^/@]*@", "//", uri.partition("?")[0])


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
