"""What killed writers have left is removed by the next writer; what others still write is not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_shards.storage import locate, write_file
from data_shards.storage.files import writing
from data_shards.storage.temporary import machine, temporary_name


def ended() -> int:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("verb", ["writing", "write_file"])
def test_leftovers_of_killed_processes_are_removed(tmp_path: Path, verb: str) -> None:
    random, process = "0123456789abcdef", ended()
    left = [tmp_path / f".{random}{machine()}{process:08x}.partial{suffix}" for suffix in ("", ".png")]
    kept = [
        tmp_path / temporary_name(".png"),
        tmp_path / f".{random}{machine()}{os.getppid():08x}.partial",
        # Of another machine, and of an earlier version.
        tmp_path / f".{random}{'0' * 8}{process:08x}.partial",
        tmp_path / f".{random}.partial.png",
        tmp_path / f"{random}{machine()}{process:08x}.partial",
    ]
    for path in (*left, *kept):
        path.touch()
    (tmp_path / f".{random[::-1]}{machine()}{process:08x}.partial" / "dataset").mkdir(parents=True)
    if verb == "writing":
        with writing(tmp_path / "result.png") as temporary:
            temporary.touch()
    else:
        write_file(locate(tmp_path), "result.png", b"")
    assert set(tmp_path.iterdir()) == {*kept, tmp_path / "result.png"}
