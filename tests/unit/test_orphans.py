"""What outlives a test is found, whoever its parent is now."""

import subprocess
import sys
from pathlib import Path

import orphans
import pytest
from live_processes import wait_until


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_process_whose_parent_has_ended_is_found_and_ended_and_a_child_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with subprocess.Popen(["sleep", "600"]) as child:
        try:
            left = subprocess.run(
                ["sh", "-c", "sleep 600 > /dev/null 2>&1 & echo $!"], capture_output=True, text=True, check=True
            ).stdout.strip()
            # For a moment it is still a copy of the shell.
            wait_until(lambda: Path(f"/proc/{left}/cmdline").read_bytes().split(b"\0")[0] == b"sleep")
            with monkeypatch.context() as at_once:
                at_once.setattr(orphans, "DIE_S", 0.0)
                assert f"pid {left}: sleep 600 " in orphans.end_orphans()
            assert child.poll() is None
        finally:
            child.kill()
    assert orphans.end_orphans() == []
