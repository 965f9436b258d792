"""Downloads one file over HTTP into a `.part` file, which a later call, also in another process, continues."""

import http.client
import json
import re
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, NamedTuple

from pydantic import TypeAdapter, ValidationError

from data_shards.errors import UserError
from data_shards.progress import Progress
from data_shards.storage import locate, write_file
from data_shards.storage.files import read_json

ATTEMPTS = 5  # in a row without a byte gained
FIRST_DELAY_S = 1.0  # doubles from one to the next
TIMEOUT_S = 20.0  # without a byte
CHUNK_BYTES = 1 << 18
MB = 1_000_000
WORTH_ANOTHER_TRY = (408, 425, 429, *range(500, 600))


class Remote(NamedTuple):
    """The server's description of its file, stored beside the part: only a download of the same file is continued."""

    url: str
    validator: str | None
    total: int | None


RECORD_SHAPE: TypeAdapter[Remote] = TypeAdapter(Remote)


class _ConnectionLostError(Exception):
    """The connection failed, or ended before the file did."""


def fetch(url: str, path: Path) -> None:
    """Download `url` to `path`, continuing an earlier call. Raises: UserError when that fails."""
    part, failures = _part_of(path), 0
    while True:
        before = _size(part)
        try:
            _continue(url, path)
            break
        except (_ConnectionLostError, http.client.HTTPException) as error:
            failures = 1 if _size(part) > before else failures + 1
            if failures == ATTEMPTS:
                raise UserError(f"cannot fetch {url}: {error} ({ATTEMPTS} attempts)") from error
            delay = FIRST_DELAY_S * 2 ** (failures - 1)
            print(f"stopped at {_size(part) / MB:.1f} MB ({error}); trying again in {delay:.0f} s", file=sys.stderr)
            time.sleep(delay)
    part.rename(path)
    _record_of(path).unlink()


def discard(path: Path) -> None:
    """Remove a downloaded file and its part, so that the next call starts anew."""
    for file in (path, _part_of(path), _record_of(path)):
        file.unlink(missing_ok=True)


def _continue(url: str, path: Path) -> None:
    """Use one connection to append to the part, or to start anew if the server's file has changed."""
    known = _read_record(path)
    if known is None or known.url != url:
        discard(path)
        known = Remote(url, None, None)
    have = _size(_part_of(path))
    if have == known.total:
        return
    with _open(url, path, have, known.validator) as response:
        remote, start = _describe(url, response)
        if start and (start != have or remote.total != known.total):
            discard(path)
            raise _ConnectionLostError("the server's file has changed")
        if not start:
            discard(path)  # before the record changes: no part is ever taken for one of another file
        write_file(locate(path.parent), _record_of(path).name, json.dumps(remote._asdict()).encode())
        with _part_of(path).open("ab") as file:
            _copy(response, file, remote.total, path.name)


def _open(url: str, path: Path, have: int, validator: str | None) -> http.client.HTTPResponse:
    headers = {"User-Agent": "data_shards", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": validator} if validator else {})
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if have and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            discard(path)
            raise _ConnectionLostError("the server's file has changed") from error
        if error.code in WORTH_ANOTHER_TRY:
            raise _ConnectionLostError(f"the server answered {error.code} {error.reason}") from error
        raise UserError(f"cannot fetch {url}: the server answered {error.code} {error.reason}") from error
    except OSError as error:
        raise _ConnectionLostError(_reason(error)) from error


def _describe(url: str, response: http.client.HTTPResponse) -> tuple[Remote, int]:
    """The server's description of its file, and the offset at which the response starts (0 if the server ignores ranges)."""
    headers = response.headers
    etag = headers.get("ETag", "")
    validator = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")
    if response.status != http.client.PARTIAL_CONTENT:
        length = headers.get("Content-Length")
        return Remote(url, validator, int(length) if length else None), 0
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
    if match is None:
        raise UserError(f"cannot fetch {url}: the server sent a range without saying which")
    return Remote(url, validator, int(match[2])), int(match[1])


def _copy(response: http.client.HTTPResponse, file: IO[bytes], total: int | None, name: str) -> None:
    with Progress(name, (total or 0) // MB, "MB") as progress, progress.following(lambda: file.tell() // MB):
        while chunk := _read(response):
            file.write(chunk)
    if total is not None and file.tell() != total:
        raise _ConnectionLostError("connection lost")


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(CHUNK_BYTES)
    except OSError as error:
        raise _ConnectionLostError(_reason(error)) from error


def _reason(error: OSError) -> str:
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, OSError):
        error = error.reason
    return error.strerror or str(error) or type(error).__name__


def _part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _record_of(path: Path) -> Path:
    return path.with_name(path.name + ".part.json")


def _read_record(path: Path) -> Remote | None:
    record = read_json(locate(path.parent), _record_of(path).name)
    try:
        return None if record is None else RECORD_SHAPE.validate_python(record)
    except ValidationError:
        # The file is fetched anew.
        return None


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
