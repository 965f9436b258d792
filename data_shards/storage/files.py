"""Reads, writes, lists and deletes whole files on any pyarrow filesystem: a path, s3://, gs://, abfs://. RangeReader reads ranges.

All operations retry while storage throttles or is unreachable, see patience.py.
"""

import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pyarrow import fs

from data_shards.errors import UserError, shown_name
from data_shards.storage.advice import advice_for, first_line
from data_shards.storage.checked import REMEDY, leads_out, parsed
from data_shards.storage.location import Location, read_at
from data_shards.storage.patience import patiently
from data_shards.storage.s3 import SMALL_BYTES, S3Client
from data_shards.storage.temporary import UNFINISHED, remove_leftovers, temporary_name

LOG = logging.getLogger(__name__)

T = TypeVar("T")


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; renamed to it at the end, removed if anything fails.

    Raises: UserError if the file cannot be written (OSError or ValueError from within, Pillow's for an unknown suffix).
    """
    try:
        if is_special(path):
            raise OSError("not a regular file")
        # The suffix stays last: Pillow chooses the format by it. The name may be as long as the file system allows already.
        temporary = path.with_name(temporary_name(path.suffix))
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(str(path.parent.absolute()))
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        # Not all of an OSError: it names the temporary file.
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        if isinstance(error, FileExistsError):
            reason = f"{os.fsdecode(error.filename)} is not a folder"
        advice = advice_for(error) or ""
        raise UserError(f"{shown_name(path)}: cannot be written ({advice}{shown_name(reason)})") from error


def is_special(path: Path) -> bool:
    """Whether a device such as /dev/null or a pipe is there, or a link of /dev to one: a file that is renamed to it would replace it."""
    return (path.exists() and not path.is_file() and not path.is_dir()) or path.absolute().parent == Path("/dev")


def read_file(location: Location, name: str, most: int | None = None) -> bytes | None:
    """A whole file; None where it does not exist. UserError where storage refuses, stays away, or has no such bucket.

    Args:
        most: only so many bytes of it, from its start.
    """

    def read() -> bytes:
        file, size = location.open(name)
        with file:
            return read_at(file, size if most is None else min(size, most), 0)

    try:
        return patiently(f"read {name} of {location.uri}", read, place=location)
    except (FileNotFoundError, NotADirectoryError):
        location.check_bucket()
        return None


def read_json(location: Location, name: str, remedy: str = REMEDY) -> Any:
    """The value of a JSON file, None where there is none. UserError where it is damaged, with a remedy, and as of `read_file`."""
    content, source = read_file(location, name), f"{location.uri}/{name}"
    try:
        return None if content is None else parsed(content, source, remedy)
    except UserError:
        # Object stores are asked for the size first: of a file that grew meanwhile the end is missing.
        again = read_file(location, name)
        if again is None or again == content:
            raise
        return parsed(again, source, remedy)


def file_size(location: Location, name: str) -> int | None:
    """The size of a file (bytes); None where it does not exist. UserError where storage refuses or stays away."""
    info = _do(
        location, f"find {name} of {location.uri}", lambda: location.filesystem.get_file_info(location.path(name))
    )
    return int(info.size) if info.is_file else None


def write_file(location: Location, name: str, data: bytes | memoryview, *, whole: bool = True) -> None:
    """Write a file: readers see all of it or nothing. UserError where storage refuses or stays away.

    Several processes may write the same one. What lies in its place is replaced, also a link, which is not followed.

    Args:
        whole: if not, readers may find it empty for a moment on Azure. It takes a third of the requests there and deletes nothing: of a
            deletion pyarrow's client may overlook the answer, and wait until the server closes the connection.
    """
    if leads_out(name):
        raise UserError(f"{location.uri}: {shown_name(name)} is not the name of a file inside it; nothing was written")
    path, filesystem = location.path(name), location.filesystem

    def write() -> None:
        if location.publishes_at_end or (location.is_object_store and not whole):
            _write(filesystem, path, data)
            return
        folder = os.path.dirname(path)
        temporary = f"{folder}/{temporary_name()}"
        if not location.is_object_store:
            try:
                filesystem.create_dir(folder, recursive=True)
            except FileExistsError as error:
                raise NotADirectoryError(*error.args) from error
        if isinstance(filesystem, fs.LocalFileSystem):
            remove_leftovers(folder)
        try:
            _write(filesystem, temporary, data)
            _rename(filesystem, temporary, path)
        except BaseException:
            with suppress(OSError):
                filesystem.delete_file(temporary)
            raise

    _do(location, f"write {name} to {location.uri}", write)


def _write(filesystem: fs.FileSystem, path: str, data: bytes | memoryview) -> None:
    if isinstance(filesystem, S3Client) and memoryview(data).nbytes <= SMALL_BYTES:
        filesystem = filesystem.small
    # In one call: closing an upload after a part has failed must not complete it.
    with filesystem.open_output_stream(path) as stream:
        stream.write(data)


def _rename(filesystem: fs.FileSystem, temporary: str, path: str) -> None:
    try:
        filesystem.move(temporary, path)
    except NotImplementedError:
        # Azure without a hierarchical namespace: within an account it copies whole files.
        filesystem.copy_file(temporary, path)
        filesystem.delete_file(temporary)


def list_folder(location: Location, *, recursive: bool = False) -> dict[str, fs.FileInfo]:
    """Files and folders at a location by their names below it, sorted; none where it does not exist.

    Args:
        recursive: also what lies in its folders, as folder/name. Objects whose names, as paths, lead out of the folder are passed
            over.

    UserError where storage refuses, stays away, or has no such bucket.
    """
    # Google has no folders, and a listing that is not recursive names none.
    are_implied = location.filesystem.type_name == "gcs" and not recursive
    selector = fs.FileSelector(location.root, allow_not_found=True, recursive=recursive or are_implied)

    def listed() -> list[fs.FileInfo]:
        if recursive and isinstance(location.filesystem, fs.LocalFileSystem):
            found = _below(location.filesystem, location.root)
        else:
            found = location.filesystem.get_file_info(selector)
        return sorted(found, key=lambda info: info.path)

    found = _do(location, f"list {location.uri}", listed)
    if not found:
        location.check_bucket()
    start = len(location.root) + 1
    names = {info.path[start:]: info for info in found}
    # Skipped: objects with unsafe names, and the temporary files of writers that were killed or still write.
    for name in [name for name in names if leads_out(name) or UNFINISHED.search(name)]:
        del names[name]
    return _at_the_top(location, names) if are_implied else names


def _below(filesystem: fs.LocalFileSystem, root: str) -> list[fs.FileInfo]:
    """All files and folders below a local one. pyarrow would follow links in circles."""
    found: list[fs.FileInfo] = []
    times = Counter[tuple[int, int]]()
    folders = deque([root])
    while folders:
        folder = folders.popleft()
        with suppress(FileNotFoundError, NotADirectoryError):
            about = os.stat(folder)
            times[about.st_dev, about.st_ino] += 1
            # Once by its own name, once through a link.
            if times[about.st_dev, about.st_ino] > 2:
                continue
        infos = filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True))
        found += infos
        inside = [info.path for info in infos if info.type == fs.FileType.Directory]
        folders += sorted(inside, key=os.path.islink)
    return found


def _at_the_top(location: Location, names: Mapping[str, fs.FileInfo]) -> dict[str, fs.FileInfo]:
    """Files without a folder, and the folders of the others."""
    folders = {name.partition("/")[0] for name in names if "/" in name}
    files = {name: info for name, info in names.items() if "/" not in name}
    implied = {name: fs.FileInfo(location.path(name), fs.FileType.Directory) for name in folders}
    return dict(sorted((files | implied).items()))


def list_files(location: Location) -> dict[str, int]:
    """Names and sizes (bytes) of all files at a location, those in its folders included. Errors as of `list_folder`."""
    return {name: info.size for name, info in list_folder(location, recursive=True).items() if info.is_file}


def delete_files(location: Location, names: list[str]) -> None:
    """Delete files of a location, and whole the folders inside it that they lie in. UserError where storage refuses."""
    filesystem = location.filesystem
    for folder in sorted({name.partition("/")[0] for name in names if "/" in name}):
        _do(location, f"delete {folder} of {location.uri}", partial(_delete_folder, filesystem, location.path(folder)))
    for name in names:
        if "/" not in name:
            _do(location, f"delete {name} of {location.uri}", partial(_delete_file, filesystem, location.path(name)))


@contextmanager
def probed(location: Location) -> Iterator[None]:
    """A small file is there that shows that files can be written, and is deleted in the end. Raises: UserError when that fails.

    What is read in the same folder is read within it: from the deletion to the next file that is written there, rclone's S3
    server does not find the folder (pyarrow marks it with an empty object, see `_delete_folder`).
    """
    name = f".probe-{os.getpid()}"
    write_file(location, name, b"probe")
    try:
        yield
    finally:
        delete_files(location, [name])


def _delete_folder(filesystem: fs.FileSystem, path: str) -> None:
    # In a bucket pyarrow marks a folder that it has emptied, and the parent of one that it deletes, with an empty object
    # "path/". rclone's server makes a file of it: in the parent's place that would hide all that the parent holds.
    filesystem.delete_dir_contents(path, missing_dir_ok=True)
    # A Google bucket has no marks: a folder without objects is gone, and deleting it is an error like any other.
    if filesystem.get_file_info(path).type == fs.FileType.NotFound:
        return
    try:
        filesystem.delete_dir(path)
    except FileNotFoundError:
        LOG.debug("%s is deleted already, or a file has taken its place", path)


def _delete_file(filesystem: fs.FileSystem, path: str) -> None:
    try:
        filesystem.delete_file(path)
    except OSError:
        # An earlier attempt may have succeeded without an answer, or only the marker of the parent is refused.
        if filesystem.get_file_info(path).type != fs.FileType.NotFound:
            raise


def _do(location: Location, task: str, attempt: Callable[[], T]) -> T:
    try:
        return patiently(task, attempt, place=location)
    except NotADirectoryError as error:
        raise UserError(f"cannot {task}: a file is in the place of a folder; give a folder") from error
    except FileNotFoundError as error:
        location.check_bucket()
        raise UserError(f"cannot {task}: {first_line(error)}") from error
    except UnicodeDecodeError as error:
        # Not left out of a listing: what is not seen could be deleted with its folder.
        name = shown_name(os.fsdecode(error.object))
        raise UserError(f"cannot {task}: {name} is not UTF-8; rename it, or move it elsewhere") from error
