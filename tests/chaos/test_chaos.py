"""Runs on several hosts that lose workers and machines, or gain some. Each ends as if nothing had happened: see verdict.py."""

import os
import signal
import time
from collections.abc import Callable

import pytest
from lab import BIN, WORKER, Lab, until
from run_settings import BATCH, CHANGES, EXACT, INTERVAL, LONG, REPEATED_FROM_MEMORY, STRIKE
from runs import Run
from torch import Tensor
from verdict import came_through

from nla_cyclegan.weights.checkpoint import complete_checkpoints

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

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
    row = came_through(run, "a node killed, another joins", since, undisturbed(2, CHANGES))
    assert row.repeated <= REPEATED_FROM_MEMORY


def test_a_node_dies_whose_place_another_holds_ready(laboratory: Lab, undisturbed: Undisturbed) -> None:
    head, *workers = laboratory.arrange(1, 1, 1)
    run = Run(laboratory, head, "spare", scaling={"workers": 2}, **CHANGES)
    run.reach(STRIKE)
    lost = next(node for node in workers if node.processes(WORKER))
    since = time.monotonic()
    lost.kill()
    row = came_through(run, "a node killed, a spare one is there", since, undisturbed(2, CHANGES))
    assert row.repeated <= REPEATED_FROM_MEMORY


def test_a_node_dies_and_none_takes_its_place(laboratory: Lab, undisturbed: Undisturbed) -> None:
    head, _, second = laboratory.arrange(1, 1)
    run = Run(laboratory, head, "fewer", scaling={"workers": (1, 2)}, **EXACT)
    run.reach(STRIKE)
    since = time.monotonic()
    second.kill()
    fault = "a node killed, the group continues with one worker"
    row = came_through(run, fault, since, undisturbed(2, EXACT), bitwise=False)
    assert row.repeated <= REPEATED_FROM_MEMORY


def test_a_node_joins(laboratory: Lab, undisturbed: Undisturbed) -> None:
    """An elastic group begins with what there is."""
    head, *_ = laboratory.arrange(1)
    run = Run(laboratory, head, "grown", scaling={"workers": (1, 2), "resize_s": 3}, **EXACT)
    run.reach(BATCH * INTERVAL // 2)
    since = time.monotonic()
    laboratory.add_node(1).start()
    fault = "a node joins, one worker becomes two"
    row = came_through(run, fault, since, undisturbed(1, EXACT), bitwise=False)
    assert row.repeated == 0
    assert world_at_end(run) == 2


def test_two_nodes_join_one_after_the_other(laboratory: Lab, undisturbed: Undisturbed) -> None:
    head, *_ = laboratory.arrange(1)
    run = Run(laboratory, head, "filled", scaling={"workers": (1, 3), "resize_s": 3}, **EXACT)
    run.reach(BATCH * INTERVAL // 2)
    since = time.monotonic()
    laboratory.add_node(1).start()
    laboratory.add_node(1).start()
    fault = "two nodes join one after the other, one worker becomes three"
    row = came_through(run, fault, since, undisturbed(1, EXACT), bitwise=False)
    assert row.repeated == 0
    assert world_at_end(run) == 3


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
    row = came_through(run, "a node's network cut, back later", since, undisturbed(2, CHANGES))
    assert row.seconds > 3
    assert row.repeated <= REPEATED_FROM_MEMORY


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
    row = came_through(run, "the head killed and restarted", since, undisturbed(2, CHANGES))
    assert row.repeated <= INTERVAL


def test_the_drivers_machine_is_lost(laboratory: Lab, undisturbed: Undisturbed) -> None:
    """Its command is given again on another one."""
    head, _, _, drivers = laboratory.arrange(1, 1, 0)
    run = Run(laboratory, drivers, "driverless", scaling={"workers": 2}, **CHANGES)
    run.reach(STRIKE)
    since = time.monotonic()
    drivers.kill()
    run.start(head)
    row = came_through(run, "the driver's machine lost, the command given on another", since, undisturbed(2, CHANGES))
    assert row.repeated <= INTERVAL


def test_everything_is_terminated(laboratory: Lab, undisturbed: Undisturbed) -> None:
    """Every process of the cluster gets SIGTERM at once; the machines come back, and the command is given again."""
    head, *workers = laboratory.arrange(1, 1)
    run = Run(laboratory, head, "terminated", scaling={"workers": 2}, **CHANGES)
    run.reach(STRIKE)
    since = time.monotonic()
    for node in (head, *workers):
        node.terminate_everything()
    run.end()
    for node in (head, *workers):
        node.kill()
    laboratory.arrange(1, 1)
    run.start()
    row = came_through(run, "SIGTERM to everything, restarted", since, undisturbed(2, CHANGES))
    assert row.repeated <= INTERVAL


def test_the_driver_is_terminated(laboratory: Lab, undisturbed: Undisturbed) -> None:
    """As a job that is stopped."""
    head, *_ = laboratory.arrange(1, 1)
    run = Run(laboratory, head, "stopped", scaling={"workers": 2}, **CHANGES)
    run.reach(STRIKE)
    since = time.monotonic()
    run.send(signal.SIGTERM)
    assert run.end() not in (0, 1, 2)
    run.start()
    row = came_through(run, "SIGTERM to the driver, started again", since, undisturbed(2, CHANGES))
    assert row.repeated == 0


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
    row = came_through(run, "a preemption notice of 30 s", since, undisturbed(2, LONG))
    assert f"node {names[leaving.host.address]} will be preempted; saved at " in run.said
    assert row.repeated == 0


def test_a_loader_is_killed(laboratory: Lab, undisturbed: Undisturbed) -> None:
    head, first, _ = laboratory.arrange(1, 1)
    run = Run(laboratory, head, "loaderless", scaling={"workers": 2}, **CHANGES)
    run.reach(STRIKE)
    loader, *_ = first.loaders()
    since = time.monotonic()
    os.kill(loader, signal.SIGKILL)
    row = came_through(run, "a loader process killed", since, undisturbed(2, CHANGES))
    assert row.repeated == 0


def world_at_end(run: Run) -> int:
    """Workers that wrote the newest checkpoint."""
    return int(run.folder.read_json(f"{complete_checkpoints(run.folder)[0]}/run.json")["world"])


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
