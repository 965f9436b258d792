"""Where files are: a path, or a URI that pyarrow opens (s3://, gs://, abfs://, file://)."""

import logging
import os
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pyarrow as pa
from pyarrow import fs

from data_shards.errors import UserError, shown_name
from data_shards.storage.advice import first_line
from data_shards.storage.azure import account_of, with_credentials, with_token
from data_shards.storage.patience import patiently
from data_shards.storage.proxy import keep_loopback_direct, s3_proxy
from data_shards.storage.s3 import S3Client
from data_shards.storage.uri import EMPTY, SCHEMES, is_uri, join_uri, legal, shown, split_options

LOG = logging.getLogger(__name__)

# For one call of the S3 client: seconds to wait for a connection and for the next byte, and the number of attempts. It ends
# after 1 s where nothing listens and after 21 s where a server hangs; then patience.py waits, which can be interrupted. A server
# under load that answers after 8 s does not count as hanging.
CONNECT_S = 3.0
ANSWER_S = 10.0
ATTEMPTS = 2
# Seconds in which Google's client starts new attempts. It has no option for the length of an attempt: one whose server hangs ends
# after 120 s.
RETRIES_S = 2.0
# An option that pyarrow's S3 client has, and its URIs have not: https://BUCKET.ENDPOINT, as Aliyun's OSS and Tencent's COS insist on.
VIRTUAL = "force_virtual_addressing=true"


@dataclass(frozen=True)
class Location:
    """A folder or prefix on a filesystem; `uri` is for messages."""

    filesystem: fs.FileSystem
    root: str
    uri: str

    def __post_init__(self) -> None:
        try:
            self.root.encode()
        except UnicodeEncodeError as error:
            # Not even pyarrow's local filesystem has bytes for it.
            raise UserError(f"{shown_name(self.uri)}: its name is not UTF-8; rename it, or choose another") from error

    def path(self, name: str) -> str:
        path = f"{self.root}/{name}"
        # What a bucket lies in has no name.
        return path.lstrip("/") if self.is_object_store else path

    def inside(self, name: str) -> "Location":
        """A folder in it."""
        return Location(self.filesystem, self.path(name), join_uri(self.uri, name))

    @property
    def is_object_store(self) -> bool:
        # A folder is only a prefix.
        return any(name in self.filesystem.type_name for name in ("s3", "gcs", "gs", "abfs"))

    @property
    def bucket(self) -> str:
        """The bucket or container; empty where there is none."""
        return self.root.partition("/")[0] if self.is_object_store else ""

    @property
    def publishes_at_end(self) -> bool:
        """Whether a file appears, or replaces another, when its upload is complete."""
        # pyarrow's client for Azure begins by making the file empty.
        return self.is_object_store and self.filesystem.type_name != "abfs"

    def renew(self) -> None:
        """Read expired credentials again, where the client does not do so by itself."""
        if isinstance(self.filesystem, S3Client):
            self.filesystem.renew()

    def open(self, name: str) -> tuple[pa.NativeFile, int]:
        """A file to read, and its size in bytes. Raises: OSError, FileNotFoundError where there is none."""
        file = self.filesystem.open_input_file(self.path(name))
        if self.filesystem.type_name != "gcs":
            return file, file.size()
        # Google's client asks the server at each call of size(), and holds the GIL meanwhile, which would stop training. (It still
        # does so at the first read of a file.)
        info = self.filesystem.get_file_info(self.path(name))
        if not info.is_file:
            raise FileNotFoundError(f"{name} of {self.uri}")
        return file, int(info.size)

    def check_bucket(self) -> None:
        """UserError where the bucket does not exist: to pyarrow a prefix in it is then merely empty."""
        bucket = self.bucket
        if not bucket:
            return
        try:
            found = self.filesystem.get_file_info(bucket)
        except OSError as error:
            # The right to read objects does not include the right to query the bucket.
            LOG.debug("cannot ask for bucket %s: %s", bucket, first_line(error))
            return
        if found.type == fs.FileType.NotFound:
            place, also = f"bucket {bucket} at {endpoint_of(self.uri) or 'the default endpoint'}", ""
            if self.filesystem.type_name == "abfs":
                place = f"container {bucket} in account {account_of(self.filesystem)}"
            elif self.filesystem.type_name == "s3":
                also = " or AWS_ENDPOINT_URL"
            raise UserError(f"cannot open {self.uri}: there is no {place}: create it, or correct the URI{also}")


def read_at(file: pa.NativeFile, length: int, offset: int) -> bytes:
    """`length` bytes of an open file from `offset` on. Raises: OSError, also where there are fewer."""
    try:
        data = bytes(file.read_at(length, offset))
    except ValueError as error:
        # pyarrow reports a connection that Google's client has lost as a closed file.
        raise OSError(f"the connection was lost ({error})") from error
    if len(data) != length:
        raise OSError(f"the transfer ended after {len(data)} of {length} bytes")
    return data


def locate(uri: str | os.PathLike[str]) -> Location:
    """The location of a path or URI (options as `?endpoint_override=...`). UserError for one that nothing can open."""
    text = os.fspath(uri)
    if text.startswith("pipe:"):
        raise UserError(
            f"{text}: pipe: runs a shell command and is refused; give a path or a URI such as s3://bucket/prefix"
        )
    if not is_uri(text):
        path = Path(expanded(text)).absolute()
        return Location(fs.LocalFileSystem(), str(path), str(path))
    scheme = text.partition("://")[0]
    if scheme not in SCHEMES:
        raise UserError(
            f"cannot open {shown_name(shown(text))}: it begins with {shown_name(scheme)!r}; give a path, or a URI that begins "
            "with s3://, gs://, abfs:// or file://"
        )
    keep_loopback_direct()
    # Without a region or an endpoint this asks AWS where the bucket is.
    filesystem, root = patiently(f"open {shown(text)}", lambda: fs.FileSystem.from_uri(legal(_without_virtual(text))))
    if filesystem.type_name in ("s3", "gcs") and "retry_limit_seconds=" not in text:
        filesystem = _that_gives_up(filesystem, text)
    location = Location(filesystem, root.rstrip("/"), shown(text))
    if not location.is_object_store:
        return location
    location = replace(location, root=location.root.lstrip("/"))
    if not location.root:
        raise UserError(f"cannot open {location.uri}: it names no bucket")
    if filesystem.type_name != "abfs":
        return location
    client = with_credentials(filesystem, text)
    client = patiently(f"open {location.uri}", lambda: with_token(client, text, location.path("manifest.json")))
    return replace(location, filesystem=client)


def expanded(path: str) -> str:
    """A local path with `~` as the home folder; a URI stays as it is. Raises: UserError for what is no path."""
    if not path:
        raise UserError(EMPTY)
    if "\0" in path:
        raise UserError(f"{shown_name(path)}: a path cannot contain a NUL character")
    if is_uri(path) or not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError as error:
        raise UserError(f"{shown_name(path)}: no home folder is known for this user; write the path in full") from error


def endpoint_of(uri: str) -> str:
    """The server of an object store: the URI's, or else the environment's as the AWS client reads it; "" for the store's own."""
    named = parse_qs(split_options(uri)[1][1:]).get("endpoint_override", [])
    environment = [os.environ.get(name, "") for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")]
    return next(filter(None, [*named, *environment]), "")


def _without_virtual(uri: str) -> str:
    path, options = split_options(uri)
    kept = "&".join(each for each in options[1:].split("&") if each != VIRTUAL)
    return f"{path}?{kept}" if kept else path


def _that_gives_up(filesystem: fs.FileSystem, uri: str) -> fs.FileSystem:
    """The same S3 or Google client, with timeouts, retries and a proxy, for which a URI has no options."""
    # A client made from a URI retries for 6 s where nothing listens, and 31 times, 99 s in all, where a server hangs; Google's
    # for 15 minutes.
    make, (options,) = filesystem.__reduce__()
    if VIRTUAL in split_options(uri)[1]:
        options["force_virtual_addressing"] = True
    elif make(options) != filesystem:
        # Some options, such as tls_verify_certificates, exist in a URI only.
        return filesystem
    if filesystem.type_name == "gcs":
        return make(options | {"retry_time_limit": timedelta(seconds=RETRIES_S)})
    more: dict[str, Any] = {"connect_timeout": CONNECT_S, "request_timeout": ANSWER_S}
    endpoint = endpoint_of(uri) or f"s3.{filesystem.region}.amazonaws.com"
    # Unlike Google's, the S3 client does not read the proxy from the environment.
    if proxy := s3_proxy(endpoint if "://" in endpoint else f"{options['scheme']}://{endpoint}"):
        more["proxy_options"] = proxy
    return S3Client(**options | more, retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS))
