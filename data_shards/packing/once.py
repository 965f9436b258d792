"""Two places of images packed where they are needed, once: found again as long as no image has changed."""

import fcntl
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

from data_shards.cores import usable_cores
from data_shards.dataset.manifest import FORMAT_VERSION, INDEX, Dataset, open_dataset, read_manifest
from data_shards.errors import UserError, shown_name
from data_shards.images.encode import ImageFile
from data_shards.packing.chosen import HELD_OUT
from data_shards.packing.pack import SHARD_MB, pack
from data_shards.packing.sources import Sources, find_pair, state
from data_shards.storage import Location, delete_files, list_files, locate, shown
from data_shards.storage.patience import patiently
from data_shards.storage.uri import is_uri, join_uri, split_uri

LOG = logging.getLogger(__name__)

READERS = 16


def pack_once(
    a: str, b: str, parent: str, *, options: tuple[str, str] = ("--a", "--b"), say: Callable[[str], None]
) -> Dataset:
    """The dataset of two places (see `find_pair`), packed with `pack`'s defaults into a folder below `parent`, unless it is there.

    The folder's name is derived from the names, sizes and times of the images. On a file system one process packs at a time, and
    others wait for it; in a bucket concurrent packs write the same bytes. An interrupted pack is completed.

    Args:
        parent: a path or URI.
        options: names of the options for the places, for messages.
        say: called with lines about the progress and the result.

    Raises: UserError where a place has no images, or the dataset cannot be written.
    """
    sources = find_pair(a, b, HELD_OUT, options)
    uri = join_uri(parent, _name(a, b, sources))
    by_hand = f"to pack by hand: python -m data_shards pack --a {quote(shown(a))} --b {quote(shown(b))} DEST"
    with _alone(uri, say, by_hand):
        location = locate(uri)
        is_there = _is_whole(location)
        if not is_there:
            say(f"packing {sources.count:,} images of {shown_name(shown(a))} and {shown_name(shown(b))} ...")
            pack(sources, uri, jobs=usable_cores(), with_summary=False)
        dataset = open_dataset(uri)
    counts = ", ".join(f"{split} {info.samples:,}" for split, info in dataset.splits.items())
    say(f"{'packed before' if is_there else 'packed'}, in {location.uri}: {counts} images; {by_hand}")
    return dataset


def _is_whole(location: Location) -> bool:
    """Whether the dataset is complete. One that lacks shards, as in a cache that was cleared in part, is deleted."""
    manifest = read_manifest(location)
    if manifest is None:
        return False
    files = list_files(location)
    wanted = {each["name"]: each["bytes"] for each in (*manifest["shards"], manifest["index"] | {"name": INDEX})}
    if all(files.get(name) == size for name, size in wanted.items()):
        return True
    LOG.warning("%s has lost shards, and is packed anew", location.uri)
    delete_files(location, list(files))
    return False


def _name(a: str, b: str, sources: Sources) -> str:
    """The folder's name: the names of both places, and a digest of everything that determines the dataset."""
    digest = hashlib.sha256(json.dumps([FORMAT_VERSION, HELD_OUT, SHARD_MB, a, b]).encode())
    names = [f"{split}/{name}" for split, found in sources.files.items() for name in found]
    files = [file for found in sources.files.values() for file in found.values()]
    with ThreadPoolExecutor(READERS) as pool:
        # Images in a bucket that a list names are queried one by one.
        is_known = all(isinstance(file, Path) or file.size_bytes >= 0 for file in files)
        for name, state in zip(names, (map if is_known else pool.map)(_state, files), strict=True):
            digest.update(os.fsencode(f"{name} {state}\n"))
    words = [re.sub(r"[^A-Za-z0-9]+", "-", split_uri(place)[1]).strip("-")[:24] for place in (a, b)]
    return "-".join([*filter(None, words), digest.hexdigest()[:16]])


def _state(file: ImageFile) -> tuple[int, int]:
    """As `state`, and known wherever there is such a file."""
    if isinstance(file, Path) or file.size_bytes >= 0:
        return state(file)
    place = locate(file.place)
    path = place.path(file.name)
    info = patiently(f"find {file}", lambda: place.filesystem.get_file_info(path))
    return (info.size, info.mtime_ns or 0) if info.is_file else (-1, 0)


@contextmanager
def _alone(uri: str, say: Callable[[str], None], by_hand: str) -> Iterator[None]:
    """Hold the lock of a folder on a file system; the kernel releases it when the process ends, however that is.

    Raises: UserError where nothing can be written there.
    """
    if is_uri(uri):
        yield
        return
    lock = Path(f"{uri}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise UserError(f"{lock.parent}: cannot be written ({error.strerror}); {by_hand}") from error
    with open(file, "r+b"):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process packs these images: waiting for it ...")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            # A file system without locks: packs that run at once write the same bytes.
            LOG.warning("%s: no lock (%s)", lock, error)
        yield
