"""A process that waits within Ray for a head that is gone ends, with one line."""

import socket
import subprocess
import sys
import threading

from cluster.machines.head_watch import head_watched

PROGRAM = """
import sys, time
from cluster.machines.head_watch import head_watched
with head_watched(sys.argv[1], wait_s=0.2, grace_s=0.1, interval_s=0.05):
    print("watching", flush=True)
    time.sleep(600)
"""


def test_a_process_whose_head_is_gone_ends_with_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, address], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout
        assert process.stdout.readline() == "watching\n"
        # As long as it answers nothing happens: these take longer than it is waited for.
        for _ in range(8):
            head.accept()[0].close()
        assert process.poll() is None
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert len(err.splitlines()) == 1
    assert f"error: the head of the Ray cluster at {address} has not answered for" in err
    assert "the same command continues" in err


def test_who_has_left_is_not_ended() -> None:
    # Never so short an interval that the head is missed in here, however slow this machine is: these tests would end.
    before = set(threading.enumerate())
    with head_watched("127.0.0.1:1", wait_s=0, grace_s=0, interval_s=600):
        (watch,) = set(threading.enumerate()) - before
    watch.join(60)
    assert not watch.is_alive()
