"""Azure's credentials, of which pyarrow reads those of service principals, managed identities and the `az` command alone.

A URI is abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH, or for another server abfs://ACCOUNT@HOST:PORT/CONTAINER/PATH.
"""

import base64
import binascii
import os
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pyarrow import fs

from data_shards.errors import UserError
from data_shards.storage.uri import split_options

# As `az` names it, and as fsspec does.
KEYS = ("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY")
SAS = "AZURE_STORAGE_SAS_TOKEN"
ACCOUNT = "AZURE_STORAGE_ACCOUNT"
# Clients that have got a token in this process.
_PROVEN: list[fs.FileSystem] = []


def account_of(client: fs.FileSystem) -> str:
    return str(_options(client)["account_name"])


def with_credentials(client: fs.FileSystem, uri: str) -> fs.FileSystem:
    """The same client with the account key of its URI, or else the key or SAS token of the environment.

    Raises: UserError for a key that is none: pyarrow would end the process.
    """
    options = _options(client)
    if key := unquote(urlsplit(uri).password or ""):
        return _with(client, account_key=_checked(key, "the URI"))
    is_given = any(options[name] for name in ("sas_token", "client_id")) or _kind(uri)
    if is_given or os.environ.get(ACCOUNT, options["account_name"]) != options["account_name"]:
        return client
    if name := next(filter(os.environ.get, KEYS), None):
        return _with(client, account_key=_checked(os.environ[name], name))
    if token := os.environ.get(SAS):
        return _with(client, sas_token=f"?{token.removeprefix('?')}")
    return client


def with_token(client: fs.FileSystem, uri: str, path: str) -> fs.FileSystem:
    """The client, or an equal one that has got a token already. Raises: pa.ArrowException where there are no credentials.

    Without a token the client ends the process at most requests, but not at its first one for the properties of a path.
    """
    options = _options(client)
    if options["account_key"] or options["sas_token"] or _kind(uri) == "anonymous":
        return client
    known = next((proven for proven in _PROVEN if proven == client), None)
    if known is None:
        client.get_file_info(path)
        _PROVEN.append(client)
    return known or client


def _options(client: fs.FileSystem) -> dict[str, Any]:
    _, (options,) = client.__reduce__()
    return dict(options)


def _with(client: fs.FileSystem, **credentials: str) -> fs.FileSystem:
    make, (options,) = client.__reduce__()
    return make(options | credentials)


def _kind(uri: str) -> str | None:
    return parse_qs(split_options(uri)[1][1:]).get("credential_kind", [None])[0]


def _checked(key: str, source: str) -> str:
    try:
        base64.b64decode(key, validate=True)
    except binascii.Error as error:
        raise UserError(
            f"the account key of {source} is not base64 ({error}): copy it from `az storage account keys list`"
        ) from error
    return key
