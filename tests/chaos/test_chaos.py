"""Runs on several hosts, and what can happen to them. Each ends as if nothing had happened: see verdict.py."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from lab import BIN, WORKER, Lab, Node, until
from runs import Run
from torch import Tensor
from verdict import came_through

from nla_cyclegan.weights.checkpoint import complete_checkpoints

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

INTERVAL = 20  # Steps between two checkpoints.
CHANGES: dict[str, Any] = {"schedule": {"images": 640}, "checkpoint": {"every": 80}, "observe": {"every": 4}}
# Ray needs some seconds to hear of a notice.
LONG = {**CHANGES, "schedule": {"images": 1600}}
# Where most faults strike: between two checkpoints.
STRIKE = 200
# For runs whose number of workers changes on the way. Sums over two workers and over one differ in their last bits, and
# training makes more of it: two undisturbed runs of one and two workers are 4e-9 apart after 240 images, 1 after 400.
EXACT = {**CHANGES, "schedule": {"images": 240}, "step": {"precision": "fp64", "pool_size": 0}}
STRIKE_EXACT = 120

# The same for longer, with networks that take their time, and with steps so small that the last bits stay the last ones; to
# skip one would still be seen.
EXACT_LONG = {
    **LONG,
    "step": EXACT["step"],
    "optimizer": {"lr": 1e-5},
    "model": {
        "generator": {"base_channels": 12, "num_blocks": 2, "nonlocal_blocks": [1]},
        "discriminator": {"base_channels": 12, "num_layers": 1},
    },
}

Undisturbed = Callable[..., dict[str, Tensor]]


def test_nothing_happens(laboratory: Lab, undisturbed: Undisturbed) -> None:
    head, *_ = laboratory.arrange(1, 1)
    run = Run(laboratory, head, "calm", scaling={"workers": 2}, **CHANGES)
    run.reach(STRIKE)
    row = came_through(run, "nothing", time.monotonic(), undisturbed(2, CHANGES))
    assert row.repeated == 0


def test_a_node_dies_and_another_takes_its_place(laboratory: Lab, undisturbed: Undisturbed) -> None:
    head, _, second = laboratory.arrange(1, 1)
    run = Run(laboratory, head, "replaced", scaling={"workers": 2}, **CHANGES)
    run.reach(STRIKE)
    since = time.monotonic()
    second.kill()
    laboratory.add_node(1).start()
    row = came_through(run, "(b) node killed, another one joins", since, undisturbed(2, CHANGES))
    assert 0 < row.repeated <= INTERVAL


def test_a_node_dies_and_none_takes_its_place(laboratory: Lab, undisturbed: Undisturbed) -> None:
    head, _, second = laboratory.arrange(1, 1)
    run = Run(laboratory, head, "fewer", scaling={"workers": (1, 2)}, **EXACT)
    run.reach(STRIKE_EXACT)
    since = time.monotonic()
    second.kill()
    row = came_through(run, "(b) node killed, goes on with one", since, undisturbed(2, EXACT), bitwise=False)
    assert 0 < row.repeated <= INTERVAL


def test_a_node_joins(laboratory: Lab, undisturbed: Undisturbed) -> None:
    """An elastic group begins with what there is."""
    head, *_ = laboratory.arrange(1)
    run = Run(laboratory, head, "grown", scaling={"workers": (1, 2), "resize_s": 3}, **EXACT_LONG)
    run.reach(STRIKE)
    since = time.monotonic()
    laboratory.add_node(1).start()
    row = came_through(run, "a node joins, one worker becomes two", since, undisturbed(1, EXACT_LONG), bitwise=False)
    assert row.repeated <= INTERVAL
    assert run.folder.read_json(f"{complete_checkpoints(run.folder)[0]}/run.json")["world"] == 2


def test_a_nodes_network_is_cut(laboratory: Lab, undisturbed: Undisturbed) -> None:
    """Later it is back, with a worker on it that knows of nothing."""
    head, _, second, third = laboratory.arrange(1, 1, 1)
    run = Run(laboratory, head, "cut", scaling={"workers": 2}, **CHANGES)
    run.reach(STRIKE)
    cut = second if second.processes(WORKER) else third
    since = time.monotonic()
    cut.host.pull_cable()
    # What was done before it reaches the diary; then nothing moves until the group goes on without that node.
    time.sleep(3)
    run.reach(run.diary.latest + 3 * run.batch)
    cut.host.plug_in()
    row = came_through(run, "(c) network cut, back later", since, undisturbed(2, CHANGES))
    assert row.seconds > 3
    assert row.repeated <= INTERVAL


def test_the_head_dies_and_is_started_anew(laboratory: Lab, undisturbed: Undisturbed) -> None:
    """The run's command was given on another node, which outlives it, as the other nodes do until they notice."""
    head, *others = laboratory.arrange(1, 1, 0)
    run = Run(laboratory, others[-1], "headless", scaling={"workers": 2}, **CHANGES)
    run.reach(STRIKE)
    since = time.monotonic()
    head.kill()
    head.start()
    for node in others:
        # As a supervisor does. A Ray that finds another cluster at the head's address ends by itself.
        until(lambda node=node: node.process.poll() is not None, f"{node.host.name} leaves the old cluster", 120)
        node.start()
    if run.process.poll() is not None:
        run.start()
    row = came_through(run, "(d) head killed and started anew", since, undisturbed(2, CHANGES))
    assert 0 < row.repeated <= INTERVAL


def test_the_store_is_away(laboratory: Lab, undisturbed: Undisturbed) -> None:
    head, *_ = laboratory.arrange(1, 1)
    run = Run(laboratory, head, "away", scaling={"workers": 2}, **CHANGES)
    run.reach(STRIKE)
    since = time.monotonic()
    laboratory.store.pull_cable()
    time.sleep(30)
    assert run.process.poll() is None, run.said
    laboratory.store.plug_in()
    row = came_through(run, "(e) object store away for 30 s", since, undisturbed(2, CHANGES))
    assert row.repeated == 0


def test_the_disk_is_full(laboratory: Lab, undisturbed: Undisturbed) -> None:
    head, *workers = laboratory.arrange(1, 1)
    run = Run(laboratory, head, "full", scaling={"workers": 2}, **CHANGES)
    run.reach(STRIKE)
    since = time.monotonic()
    for node in workers:
        fill(node)
    stored = "checkpoint_000000000400"
    until(lambda: stored in complete_checkpoints(run.folder), "a checkpoint is stored", 120)
    for node in workers:
        (node.disk / "ballast").unlink()
    row = came_through(run, "(f) local disks full, room again later", since, undisturbed(2, CHANGES))
    assert "metrics.jsonl of s3://bucket/runs/full cannot be written ([Errno 28] No space left on device)" in run.said
    assert row.repeated <= INTERVAL


def test_the_newest_checkpoint_is_damaged(laboratory: Lab, undisturbed: Undisturbed) -> None:
    head, *_ = laboratory.arrange(1, 1)
    run = Run(laboratory, head, "damaged", scaling={"workers": 2}, **CHANGES)
    run.reach(STRIKE)
    os.killpg(run.process.pid, signal.SIGINT)
    until(lambda: not any(node.processes(WORKER) for node in laboratory.nodes if node.runs), "the workers end", 60)
    run.end()
    newest, before, *_ = complete_checkpoints(run.folder)
    damage(run, f"{newest}/generator_ab.safetensors")
    since = time.monotonic()
    run.start()
    row = came_through(run, "(g) newest checkpoint damaged", since, undisturbed(2, CHANGES))
    assert f"checkpoint {newest} is skipped: generator_ab.safetensors is damaged" in run.said
    assert f"continues from {int(before.rpartition('_')[2])} of {run.images} images" in run.said
    assert row.repeated <= 2 * INTERVAL


def test_a_node_is_given_notice(laboratory: Lab, undisturbed: Undisturbed) -> None:
    """Ray's drain with a deadline, after which the machine is gone."""
    head, *workers = laboratory.arrange(1, 1, 1)
    names = laboratory.alive()
    run = Run(laboratory, head, "notice", scaling={"workers": 2}, **LONG)
    run.reach(STRIKE)
    leaving = next(node for node in workers if node.processes(WORKER))
    since = time.monotonic()
    drain(laboratory, names[leaving.host.address], deadline_s=30)
    time.sleep(30)
    leaving.kill()
    row = came_through(run, "(h) notice of preemption, 30 s", since, undisturbed(2, LONG))
    assert f"node {names[leaving.host.address]}: to be taken away; saved at " in run.said
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


def drain(lab: Lab, node_id: str, deadline_s: int) -> None:
    """Tell Ray that a node's machine will be gone, as an autoscaler does when the cloud tells it."""
    head, log = lab.nodes[0], lab.folder / "drain.log"
    options = [
        "--reason=DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message=spot",
        f"--deadline-remaining-seconds={deadline_s}",
    ]
    told = head.popen(
        [str(BIN / "ray"), "drain-node", f"--address={lab.address}", f"--node-id={node_id}", *options], log
    )
    until(lambda: told.poll() is not None, "Ray takes the notice", 60)
    assert told.returncode == 0, log.read_text()
