"""The text of a URI: its path, as somebody types it, and its options after a question mark.

In a path all characters stand for themselves, as in the stores' own tools, and %20 is a space. So a % before two hexadecimal
digits is written %25, and a question mark before what looks like options %3F.
"""

import os
import re
from urllib.parse import quote, unquote

from data_shards.errors import UserError, shown_name

OPTIONS = re.compile(r"\?[A-Za-z]\w*=[^?]*$")
# pyarrow's own. For others it imports packages of fsspec, which raise errors of their own.
SCHEMES = ("file", "s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs")
# As in s3://bucket@best; not what `shown` leaves of credentials.
NO_USER = re.compile(r"(s3|gs|gcs)://(?!(anonymous|\*\*\*)@)[^/?@:]*@")
# s3:/bucket and gs:bucket would silently be local folders.
ALMOST = re.compile(rf"({'|'.join(SCHEMES)}|https?):/?(?!/)", re.IGNORECASE)
EMPTY = "the path is empty: name a file or a folder (is a variable of the shell not set?)"
# Options that hold a secret: client_secret=..., and sig=..., the signature of Azure's SAS tokens.
SECRET_OPTION = r"[?&](?:sig|[^=&?]*(?:secret|token|passw|key)[^=&?]*)="
# Neither allowed in a URI's path nor an escape.
ILLEGAL = re.compile(r"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9\-._~!$&'()*+,;=:@/%]")


def is_uri(text: str) -> bool:
    """Whether it is a URI, not a local path. Raises: UserError for one without its two slashes, or with an @ before the bucket."""
    if almost := ALMOST.match(text):
        scheme = almost[1].lower()
        path = text[almost.end() :].lstrip("/")
        raise UserError(
            f"{shown_name(text)}: a URI has two slashes after the colon: {scheme}:{'///' if scheme == 'file' else '//'}{shown_name(path)} "
            f"(a local path of this name: ./{shown_name(text)})"
        )
    if NO_USER.match(text):
        raise UserError(
            f"{shown_name(shown(text))}: before the bucket stands an @ without credentials; these are written s3://KEY:SECRET@bucket, "
            "and a checkpoint of a run s3://bucket/run@best"
        )
    return "://" in text


def shown(uri: str) -> str:
    """A URI, or a text with one, for messages and logs: without the credentials of s3://KEY:SECRET@bucket or ?sig=SIGNATURE."""
    # A secret may hold a slash that should have been written %2F. In abfs://CONTAINER@ACCOUNT no credentials precede the @.
    public = re.sub(r"(?<!abfs)(?<!abfss)://[^/?@]*@|://[^?@]*:[^?]*@", "://***@", uri)
    return re.sub(rf"({SECRET_OPTION})[^&\s'\"]*", r"\1***", public, flags=re.IGNORECASE)


def split_options(uri: str) -> tuple[str, str]:
    """A URI without its options, and these with their question mark; a path has none."""
    options = OPTIONS.search(uri) if is_uri(uri) else None
    return (uri[: options.start()], options[0]) if options else (uri, "")


def legal(uri: str) -> str:
    """The same URI with all escapes that parsers insist on."""
    text, options = split_options(uri)
    scheme, mark, rest = text.partition("://")
    if scheme == "file":
        rest = rest.removeprefix("localhost")
    # Users and buckets have other rules.
    authority, slash, path = rest.partition("/")
    return f"{scheme}{mark}{authority}{slash}{ILLEGAL.sub(lambda found: quote(found[0]), path)}{options}"


def in_uri(path: str) -> str:
    """A file system path as the path of a URI: characters with a special meaning are escaped."""
    return path.replace("%", "%25").replace("?", "%3F")


def split_uri(uri: str) -> tuple[str, str]:
    """Storage and name of a folder; options of a URI belong to the storage. Raises: UserError for an empty path."""
    if not uri:
        raise UserError(EMPTY)
    path, options = split_options(uri)
    if not is_uri(uri) and path.rstrip("/").rpartition("/")[2] in (".", ".."):
        path = os.path.abspath(path)
    storage, slash, name = path.rstrip("/").rpartition("/")
    if is_uri(uri) and name.endswith(":"):
        raise UserError(f"{shown(uri)}: {EMPTY}")
    if is_uri(uri) and "://" not in storage:
        # A bucket alone.
        storage = f"{storage}/"
    return f"{storage or slash or '.'}{options}", unquote(name) if is_uri(uri) else name


def join_uri(storage: str, name: str) -> str:
    """The reverse: a folder in storage as a storage of its own."""
    path, options = split_options(storage)
    return f"{path.rstrip('/')}/{in_uri(name) if is_uri(storage) else name}{options}"
