"""Two Rays on one machine: each one's processes ask their own, not whichever they find."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# What Ray Train's cleaner does, which gives back the cores of a trial that was stopped.
SCRIPT = """
import sys
from cluster.machines.session import ray_session

with ray_session(None):
    import ray
    from ray.util.state import get_actor

    @ray.remote
    class Actor:
        def state(self):
            return get_actor(ray.get_runtime_context().get_actor_id(), timeout=30).state

    actor = Actor.remote()
    print("up", flush=True)
    sys.stdin.readline()
    print(ray.get(actor.state.remote()), flush=True)
"""


def test_each_finds_its_own() -> None:
    start = [sys.executable, "-c", SCRIPT]
    both = [
        subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
        for _ in range(2)
    ]
    try:
        assert [each.stdout.readline() for each in both if each.stdout] == ["up\n"] * 2
        assert [each.communicate("go\n", timeout=120)[0] for each in both] == ["ALIVE\n"] * 2
    finally:
        for each in both:
            each.kill()
