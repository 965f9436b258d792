"""Files and folders of this machine as options: a URI never becomes a folder called s3:, nor ~ one called ~."""

import argparse
import os
from pathlib import Path

import pytest

from cluster.__main__ import main as cluster
from data_shards.__main__ import main as data_shards
from data_shards.errors import UserError
from data_shards.local_paths import LocalFile, LocalPath, Result
from nla_cyclegan.__main__ import main as nla_cyclegan
from nla_cyclegan.commands.translate import TranslationFolder
from tuning.__main__ import main as tuning

URI = "s3://KEY:SECRET@bucket/x.png"


def parsed(action: type[argparse.Action], *arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", action=action)
    parser.add_argument("inputs", nargs="*", action=action)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    ("text", "path"),
    [("a b/", "a b"), ("~/x", "HOME/x"), ("file:///a/b%20c?d#e", "/a/b c?d#e"), ("file://localhost/a", "/a")],
)
def test_what_a_path_means(text: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "HOME")
    assert parsed(LocalPath, "--out", text, text, "y") == argparse.Namespace(
        out=Path(path), inputs=[Path(path), Path("y")]
    )


@pytest.mark.parametrize(
    ("action", "text", "said"),
    [
        (LocalPath, URI, r"--out s3://\*\*\*@bucket/x.png: expected a path of this machine, not a URI"),
        (LocalPath, "file://data/x", "--out file://data/x: expected a path of this machine"),
        (LocalPath, "", "--out the path is empty"),
        (LocalPath, "~nobody-here/x", "--out ~nobody-here/x: no home folder is known"),
        (LocalPath, "a\0b", "--out .*: a path cannot contain a NUL character"),
        (LocalFile, ".", "--out .: cannot be written \\(Is a directory\\); name a file in it"),
        (TranslationFolder, "new.JPG", "--out new.JPG: is named like an image; name a folder"),
        (
            TranslationFolder,
            "images.zip",
            "--out images.zip: is named like an archive, a table or a film; name a folder",
        ),
        (LocalFile, "new/", "--out new/: cannot be written \\(Is a directory\\)"),
        (LocalFile, "/dev/null", "--out /dev/null: cannot be written \\(not a regular file\\)"),
        (LocalFile, "/dev/stdout", "--out /dev/stdout: cannot be written \\(not a regular file\\)"),
        (Result, f"{__file__}/x/y", f"--out {__file__}/x/y: cannot be written, {__file__} is not a folder"),
    ],
)
def test_what_is_no_path_of_this_machine(action: type[argparse.Action], text: str, said: str) -> None:
    with pytest.raises(UserError, match=f"^{said}"):
        parsed(action, "--out", text)


def test_a_file_in_a_folder_that_is_closed_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(UserError, match=rf"new/x.json: cannot be written \(no permission in {tmp_path}\)"):
        parsed(LocalFile, "--out", str(tmp_path / "new" / "x.json"))


@pytest.mark.parametrize(
    "command",
    [
        (data_shards, "synth", URI),
        (data_shards, "download", "monet2photo", URI),
        (data_shards, "inspect", "ds", "--contact-sheet", URI),
        (data_shards, "bench", "ds", "--json", URI),
        (nla_cyclegan, "translate", URI, "--weights", "w", "--out", "o"),
        (nla_cyclegan, "translate", "a.png", "--weights", "w", "--out", URI),
        (nla_cyclegan, "translate", "a.png", "--weights", "w", "--out", "o", "--grid", URI),
        (nla_cyclegan, "evaluate", "--weights", "w", "--inputs", "a", "--real", URI),
        (nla_cyclegan, "evaluate", "--weights", "w", "--inputs", "a", "--real", "b", "--json", URI),
        (nla_cyclegan, "export", "--weights", "w", "--format", "hub", "--out", URI),
        (nla_cyclegan, "import-weights", "w.pth", "--out", URI),
        (cluster, "compare", "a", "b", "--out", URI),
        (tuning, "results", "sweep", "--out", URI),
        (tuning, "dashboard", "sweep", "--out", URI),
    ],
    ids=lambda command: " ".join(command[1:]),
)
def test_verbs_that_write_here_refuse_a_uri(command, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert command[0](command[1:]) == 2
    error = capsys.readouterr().err
    assert "expected a path of this machine, not a URI" in error
    assert error.count("\n") == 1
    assert "SECRET" not in error
    assert list(tmp_path.iterdir()) == []
