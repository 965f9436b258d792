"""What outlives a test is found, whoever its parent is now."""

import subprocess
import sys

import orphans
import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_process_whose_parent_has_ended_is_found_and_ended_and_a_child_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(orphans, "DIE_S", 0.2)
    with subprocess.Popen(["sleep", "60"]) as child:
        left = subprocess.run(
            ["sh", "-c", "sleep 60 > /dev/null 2>&1 & echo $!"], capture_output=True, text=True, check=True
        )
        assert f"pid {left.stdout.strip()}: sleep 60 " in orphans.end_orphans()
        assert child.poll() is None
        child.kill()
    assert orphans.end_orphans() == []
