"""Runs on several hosts whose store, disks or checkpoints fail, and runs that two drivers want."""

import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from lab import WORKER, Lab, Node, until
from run_settings import BATCH, CHANGES, INTERVAL, LONG, REPEATED_FROM_MEMORY, STRIKE
from runs import Run
from torch import Tensor
from verdict import came_through

from nla_cyclegan.weights.checkpoint import complete_checkpoints
from nla_cyclegan.weights.checkpoint_names import images_of

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

# The store, not the machines, is what these faults hit.
SLOW_S, SLOW_FOR_S = 8, 60

Undisturbed = Callable[..., dict[str, Tensor]]


def test_the_store_is_away(laboratory: Lab, undisturbed: Undisturbed) -> None:
    head, *_ = laboratory.arrange(1, 1)
    run = Run(laboratory, head, "away", scaling={"workers": 2}, **CHANGES)
    run.reach(STRIKE)
    since = time.monotonic()
    laboratory.store.pull_cable()
    time.sleep(30)
    assert run.process.poll() is None, run.said
    laboratory.store.plug_in()
    row = came_through(run, "the object store unreachable for 30 s", since, undisturbed(2, CHANGES))
    assert row.repeated == 0


def test_the_store_is_slow(laboratory: Lab, undisturbed: Undisturbed) -> None:
    """Every request is answered 8 s later, for a minute in which checkpoints are due."""
    head, *_ = laboratory.arrange(1, 1)
    run = Run(laboratory, head, "slow", scaling={"workers": 2}, **LONG)
    run.reach(STRIKE)
    since = time.monotonic()
    laboratory.order_store(f"slow {SLOW_S}")
    time.sleep(SLOW_FOR_S)
    assert run.process.poll() is None, run.said
    laboratory.order_store("well")
    row = came_through(run, "an object store that answers after 8 s, for a minute", since, undisturbed(2, LONG))
    assert row.repeated == 0


def test_the_disk_is_full(laboratory: Lab, undisturbed: Undisturbed) -> None:
    head, *workers = laboratory.arrange(1, 1)
    run = Run(laboratory, head, "full", scaling={"workers": 2}, **LONG)
    run.reach(STRIKE)
    since = time.monotonic()
    for node in workers:
        fill(node)
    stored = 2 * BATCH * INTERVAL
    until(lambda: stored in map(images_of, complete_checkpoints(run.folder)), "a checkpoint is stored", 120)
    for node in workers:
        (node.disk / "ballast").unlink()
    row = came_through(run, "local disks full, room again later", since, undisturbed(2, LONG))
    assert "metrics.jsonl of s3://bucket/runs/full cannot be written ([Errno 28] No space left on device)" in run.said
    assert row.repeated <= REPEATED_FROM_MEMORY


def test_the_newest_checkpoint_is_damaged(laboratory: Lab, undisturbed: Undisturbed) -> None:
    head, *workers = laboratory.arrange(1, 1)
    run = Run(laboratory, head, "damaged", scaling={"workers": 2}, **CHANGES)
    run.reach(STRIKE)
    run.send(signal.SIGINT)
    until(lambda: not any(node.processes(WORKER) for node in workers), "the workers end", 60)
    run.end()
    newest, before, *_ = complete_checkpoints(run.folder)
    damage(run, f"{newest}/generator_ab.safetensors")
    since = time.monotonic()
    run.start()
    row = came_through(run, "the newest checkpoint damaged", since, undisturbed(2, CHANGES))
    assert f"checkpoint {newest} is skipped: generator_ab.safetensors is damaged" in run.said
    assert f"continues from {images_of(before)} of {run.images} images" in run.said
    assert row.repeated <= INTERVAL


def test_a_second_driver_is_refused(laboratory: Lab, undisturbed: Undisturbed) -> None:
    head, *_, other = laboratory.arrange(1, 1, 0)
    run = Run(laboratory, head, "owned", scaling={"workers": 2}, **CHANGES)
    run.reach(BATCH * INTERVAL // 2)
    since, log = time.monotonic(), laboratory.folder / "second.log"
    second = run.give_command(other, log)
    until(lambda: second.poll() is not None, "the second driver ends", 60)
    assert second.returncode not in (0, None)
    assert "--take-over" in log.read_text(), log.read_text()
    assert run.process.poll() is None, run.said
    row = came_through(run, "a second driver of the same run", since, undisturbed(2, CHANGES))
    assert row.repeated == 0


def test_two_drivers_start_at_once(laboratory: Lab, undisturbed: Undisturbed) -> None:
    """One of them trains, the other one is refused."""
    head, *_, other = laboratory.arrange(1, 1, 0)
    since, log = time.monotonic(), laboratory.folder / "twin.log"
    run = Run(laboratory, head, "twins", scaling={"workers": 2}, **CHANGES)
    twin = run.give_command(other, log)
    until(
        lambda: None not in (run.process.poll(), twin.poll()) or run.diary.latest >= STRIKE, "one of them trains", 300
    )
    until(lambda: {run.process.poll(), twin.poll()} != {None}, "one of them is refused", 60)
    if run.process.poll() is not None:
        run.process, run.log = twin, log
    row = came_through(run, "two drivers started at once", since, undisturbed(2, CHANGES))
    assert row.repeated == 0


def fill(node: Node) -> None:
    """Leave no room on a node's disk."""
    with (node.disk / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
        while ballast.write(bytes(1 << 16)):
            pass
    assert shutil.disk_usage(node.disk).free < 1 << 16


def damage(run: Run, file: str) -> None:
    """Turn one bit."""
    content = bytearray(run.folder.read(file) or b"")
    content[-1] ^= 1
    with run.folder.filesystem.open_output_stream(f"{run.folder.path}/{file}") as stream:
        stream.write(bytes(content))
