"""Names in URIs: as typed, as escaped, and from one to the other."""

import pytest

from data_shards.errors import UserError
from data_shards.storage.folder import RunFolder
from data_shards.storage.uri import in_uri, join_uri, legal, split_options, split_uri

OPTIONS = "?endpoint_override=127.0.0.1:9000&scheme=http"


@pytest.mark.parametrize(
    ("uri", "text", "options"),
    [
        (f"s3://b/a{OPTIONS}", "s3://b/a", OPTIONS),
        ("s3://b/what?/run", "s3://b/what?/run", ""),
        (f"s3://b/what?/run{OPTIONS}", "s3://b/what?/run", OPTIONS),
        ("s3://b/a?tls_ca_file_path=/etc/ca.pem", "s3://b/a", "?tls_ca_file_path=/etc/ca.pem"),
        ("/data/a?b=c", "/data/a?b=c", ""),
    ],
)
def test_options(uri: str, text: str, options: str) -> None:
    assert split_options(uri) == (text, options)


@pytest.mark.parametrize(
    ("typed", "parsed"),
    [
        ("s3://b/a b#1", "s3://b/a%20b%231"),
        ("s3://b/50%/ü", "s3://b/50%25/%C3%BC"),
        ("s3://b/a%20b", "s3://b/a%20b"),
        ("s3://key:se%2Fcret@b/a b?region=x", "s3://key:se%2Fcret@b/a%20b?region=x"),
        ("s3://b?region=x", "s3://b?region=x"),
        ("s3://b/a?b/c?region=x", "s3://b/a%3Fb/c?region=x"),
        ("file:///tmp/a b", "file:///tmp/a%20b"),
    ],
)
def test_what_the_parser_gets(typed: str, parsed: str) -> None:
    assert legal(typed) == parsed


@pytest.mark.parametrize("name", ["run", "a b", "50%", "a%20b", "a?b=c", "#1", "ü"])
@pytest.mark.parametrize("storage", [f"s3://b/runs{OPTIONS}", "s3://b/runs", "/data/runs"])
def test_a_name_joined_and_split_is_itself(storage: str, name: str) -> None:
    assert split_uri(join_uri(storage, name)) == (storage, name)


def test_a_bucket_is_no_folder_in_storage() -> None:
    assert split_uri(f"s3://bucket{OPTIONS}") == (f"s3://{OPTIONS}", "bucket")
    with pytest.raises(UserError, match=r"^s3://bucket: a bucket, not a folder in it; write it as s3://bucket/FOLDER$"):
        RunFolder(*split_uri(f"s3://bucket{OPTIONS}"))


@pytest.mark.parametrize("uri", ["s3://", "s3:///", "file:///"])
def test_a_scheme_alone_is_no_local_folder_of_its_name(uri: str) -> None:
    with pytest.raises(UserError, match=f"^{uri}: the path is empty"):
        split_uri(uri)


def test_a_name_may_be_escaped() -> None:
    assert split_uri("s3://b/runs/my%20run") == ("s3://b/runs", "my run")
    assert split_uri("/runs/my%20run") == ("/runs", "my%20run")
    assert in_uri("a%20b?") == "a%2520b%3F"
