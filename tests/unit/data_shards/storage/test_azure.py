"""Azure without a server: which credentials its client gets, and what errors say."""

from typing import Any
from unittest.mock import MagicMock

import pyarrow as pa
import pytest

from data_shards.errors import StorageAwayError, UserError
from data_shards.storage import azure, files, locate, patience
from data_shards.storage.advice import first_line
from data_shards.storage.folder import RunFolder
from data_shards.storage.uri import shown

# Nothing listens there.
URI = "abfs://account@127.0.0.1:1/container/x?enable_tls=false"
KEY, OTHER = "a2V5", "b3RoZXI="


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*azure.KEYS, azure.SAS, azure.ACCOUNT):
        monkeypatch.delenv(name, raising=False)


def options(uri: str) -> dict[str, Any]:
    _, (found,) = locate(uri).filesystem.__reduce__()
    return {name: value for name, value in found.items() if name in ("account_key", "sas_token") and value}


@pytest.mark.parametrize(
    ("environment", "uri", "expected"),
    [
        ({"AZURE_STORAGE_KEY": KEY, "AZURE_STORAGE_SAS_TOKEN": "sig=x"}, URI, {"account_key": KEY}),
        ({"AZURE_STORAGE_ACCOUNT_KEY": KEY, "AZURE_STORAGE_ACCOUNT": "account"}, URI, {"account_key": KEY}),
        ({"AZURE_STORAGE_SAS_TOKEN": "sv=1&sig=x"}, URI, {"sas_token": "?sv=1&sig=x"}),
        ({"AZURE_STORAGE_KEY": KEY}, f"{URI}&sv=1&sig=x", {"sas_token": "?enable_tls=false&sv=1&sig=x"}),
        ({"AZURE_STORAGE_KEY": KEY}, f"{URI}&credential_kind=anonymous", {}),
        ({"AZURE_STORAGE_KEY": KEY}, URI.replace("account@", "account:b3RoZXI%3D@"), {"account_key": OTHER}),
    ],
)
def test_credentials_are_taken_without_a_request(
    environment: dict[str, str], uri: str, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # A request to this account would take a minute.
    assert options(uri) == expected


def test_a_key_of_another_account_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_KEY", KEY)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "another")
    with pytest.raises(UserError, match="no credentials: set AZURE_STORAGE_KEY"):
        locate(URI)


def test_a_key_that_is_none_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_KEY", "not base64!")
    with pytest.raises(UserError, match="the account key of AZURE_STORAGE_KEY is not base64") as caught:
        locate(URI)
    assert "not base64!" not in str(caught.value)


class Client:
    """Needs a token; all are equal."""

    def __init__(self) -> None:
        self.get_file_info = MagicMock()

    def __reduce__(self) -> Any:
        return Client, ({"account_key": "", "sas_token": ""},)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Client)

    __hash__ = object.__hash__


def test_an_account_is_asked_for_a_token_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(azure, "_PROVEN", [])
    refused, first, second = Client(), Client(), Client()
    refused.get_file_info.side_effect = OSError("no token")
    with pytest.raises(OSError, match="no token"):
        azure.with_token(refused, URI, "container/x")
    assert azure.with_token(first, URI, "container/x") is first
    assert azure.with_token(second, URI, "container/x") is first
    assert (first.get_file_info.call_count, second.get_file_info.call_count) == (1, 0)


def test_without_a_hierarchical_namespace_a_file_is_copied_into_its_place() -> None:
    filesystem = MagicMock()
    files._rename(filesystem, "c/.t", "c/name")
    assert [call[0] for call in filesystem.method_calls] == ["move"]
    filesystem.move.side_effect = pa.ArrowNotImplementedError
    filesystem.reset_mock()
    files._rename(filesystem, "c/.t", "c/name")
    assert [call[0] for call in filesystem.method_calls] == ["move", "copy_file", "delete_file"]


SAID = "GetProperties failed for 'http://h/c/x?se=1&sig=hidden&sp=r'. Cannot do it. Azure Error: [{}] {}\nRequest ID: 1"


@pytest.mark.parametrize(
    ("code", "reason", "advice"),
    [
        ("AuthorizationFailure", "403 Server failed to authenticate", "credentials refused: set AZURE_STORAGE_KEY or"),
        ("", "401 Unauthorized", "credentials refused: set AZURE_STORAGE_KEY or"),
        ("ContainerNotFound", "404 The container does not exist", "there is no such container: create it"),
        ("ResourceNotFound", "404 The resource does not exist", "request refused"),
    ],
)
def test_a_refusal_is_one_line_at_once(code: str, reason: str, advice: str) -> None:
    with pytest.raises(UserError) as caught:
        patience.patiently("read it", MagicMock(side_effect=OSError(SAID.format(code, reason))))
    assert str(caught.value).startswith(f"cannot read it: {advice}")
    assert str(caught.value).endswith(f"{f'[{code}] ' if code else ''}{reason}")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "reason",
    ["503 Server is busy", "409 There is already a lease", "412 lease ID", "416 range", "429 x", "500 x", "reset"],
)
def test_what_may_pass_is_tried_again(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_DELAY_S", 0.001)
    attempt = MagicMock(side_effect=[OSError(SAID.format("X", reason)), "done"])
    assert patience.patiently("read it", attempt) == "done"


def test_an_account_that_does_not_exist_is_named_with_what_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 0.0)
    said = "Check failed. Azure Error: [] Fail to get a new connection for: https://typo.dfs.core.windows.net. Could not resolve hostname"
    with pytest.raises(StorageAwayError, match=r"no such host: is the account, .* https://typo.dfs") as caught:
        patience.patiently("open it", MagicMock(side_effect=OSError(said)))
    assert "Check failed" not in str(caught.value)


def test_signatures_are_not_shown() -> None:
    assert shown("abfs://c@a.dfs.core.windows.net/x?sv=1&sig=a%2Fb&sp=r") == (
        "abfs://c@a.dfs.core.windows.net/x?sv=1&sig=***&sp=r"
    )
    assert shown("from 'https://h/c?client_secret=a&sig=b' at 3") == "from 'https://h/c?client_secret=***&sig=***' at 3"
    assert first_line(OSError("a\nb")) == "a"


def test_the_label_of_a_run_names_the_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_KEY", KEY)
    folder = RunFolder("abfs://container@account.dfs.core.windows.net/runs", "mine")
    assert (folder.path, folder.label) == (
        "container/runs/mine",
        "abfs://container@account.dfs.core.windows.net/runs/mine",
    )
