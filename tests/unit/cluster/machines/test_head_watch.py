"""A process that waits within Ray for a head that is gone ends, with one line."""

import socket
import subprocess
import sys
import time

from cluster.machines.head_watch import head_watched

PROGRAM = """
import sys, time
from cluster.machines.head_watch import head_watched
with head_watched(sys.argv[1], wait_s=0.3, grace_s=0.2, interval_s=0.1):
    print("watching", flush=True)
    time.sleep(60)
"""


def test_a_process_whose_head_is_gone_ends_with_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, address], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout
        assert process.stdout.readline() == "watching\n"
        time.sleep(1)
        # As long as it answers nothing happens.
        assert process.poll() is None
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert len(err.splitlines()) == 1
    assert f"error: the head of the Ray cluster at {address} has not answered for" in err
    assert "the same command continues" in err


def test_who_has_left_is_not_ended() -> None:
    with head_watched("127.0.0.1:1", wait_s=0, grace_s=0, interval_s=0.05):
        pass
    time.sleep(0.3)
