"""A run on the lab's cluster, watched from outside: what every attempt of it did, and what it left in the store."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import tiny
import yaml
from lab import Lab, Node, until

from data_shards.storage.folder import RunFolder

ENDS_WITHIN_S = 300.0
LOOK_S = 0.2


class Diary:
    """Every step that any attempt at a run has done, from the records that its rank 0 writes down after each.

    A step that was done twice has two records, of different times; an attempt begins with copies of the records of those
    before it, which have not. They are collected all the time, because attempts and nodes go away.
    """

    def __init__(self, lab: Lab, stored: Callable[[], bytes]) -> None:
        self._lab, self._stored = lab, stored
        self._others = set(self._files())
        # The record -> when it was first seen here.
        self._seen: dict[str, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def steps(self) -> list[int]:
        """Images seen at the end of each step that was done, as often as it was done."""
        return sorted(json.loads(line)["images"] for line in list(self._seen))

    @property
    def latest(self) -> int:
        return max(self.steps, default=0)

    @property
    def repeated(self) -> int:
        return len(self.steps) - len(set(self.steps))

    def standstill_s(self, since: float) -> float:
        """The longest time without a step that was not done before, of the time (monotonic) since then."""
        first: dict[int, float] = {}
        for line, at in sorted(self._seen.items(), key=lambda item: item[1]):
            first.setdefault(json.loads(line)["images"], at)
        times = [since, *(at for at in sorted(first.values()) if at > since)]
        return max((after - before for before, after in pairwise(times)), default=0.0)

    def _collect(self) -> None:
        over = False
        while not over:
            # One look more after the end, for the last records.
            over = self._ended.wait(LOOK_S)
            for file in set(self._files()) - self._others:
                with suppress(FileNotFoundError):
                    self._add(file.read_bytes())
        self._add(self._stored())

    def _add(self, content: bytes) -> None:
        now = time.monotonic()
        for line in content.decode().splitlines():
            if line not in self._seen and _whole(line):
                self._seen[line] = now

    def _files(self) -> Iterator[Path]:
        for node in self._lab.nodes:
            yield from node.disk.glob("*/metrics.jsonl")


def _whole(line: str) -> bool:
    """Whether it is a step's record, not cut off by the attempt's end."""
    with suppress(ValueError):
        return "generator_total" in json.loads(line)
    return False


class Run:
    """A run, through any number of times that its command is given.

    Args:
        node: where its command is given.
        changes: of tiny's settings, see there.
    """

    def __init__(self, lab: Lab, node: Node, name: str, **changes: Any) -> None:
        self.lab, self.node = lab, node
        settings = tiny.settings(lab.uri("data"), lab.uri("runs"), name=name, **changes)
        self.name, self.images = name, settings["schedule"]["images"]
        self.batch = settings["data"]["global_batch"]
        self.folder = RunFolder(lab.uri("runs", past_cables=True), name)
        self.log, self.file = lab.folder / f"{name}.log", lab.folder / f"{name}.yaml"
        self.file.write_text(yaml.safe_dump(settings))
        self.diary = Diary(lab, lambda: self.folder.read("metrics.jsonl") or b"")
        self.start()

    def start(self, node: Node | None = None) -> None:
        """Give its command, again, on this node from now on."""
        self.node = node or self.node
        self.process = self.give_command(self.node, self.log)

    def give_command(self, node: Node, log: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "cluster", "train", "--config", str(self.file), "--address", self.lab.address]
        return node.popen(command, log)

    def send(self, number: int) -> None:
        """Send its driver a signal: not the whole group, in which the program that entered the node would end first."""
        for pid in self.node.processes(str(self.file)):
            os.kill(pid, number)

    @property
    def said(self) -> str:
        """What its command has printed."""
        return self.log.read_text(errors="replace")

    def reach(self, images: int) -> None:
        """Wait until a step has ended at these images."""
        until(lambda: self.diary.latest >= images, f"{self.name}: {images} images", ENDS_WITHIN_S, self._ended)

    def _ended(self) -> str | None:
        return None if self.process.poll() is None else f"it ended with {self.process.returncode}:\n{self.said[-6000:]}"

    def end(self) -> int:
        """Wait for its end; the exit status of its command."""
        until(lambda: self.process.poll() is not None, f"{self.name} ends", ENDS_WITHIN_S)
        return int(self.process.returncode)

    def recorded(self) -> list[int]:
        """Images seen of the steps' records in the store, in their order."""
        lines = (self.folder.read("metrics.jsonl") or b"").decode().splitlines()
        return [json.loads(line)["images"] for line in lines if _whole(line)]


class SweptRun(Run):
    """The only trial of a sweep; the commands are the sweep's."""

    def __init__(self, lab: Lab, node: Node, name: str, **changes: Any) -> None:
        super().__init__(lab, node, name, **changes)
        self.folder = RunFolder(lab.uri(f"sweeps/{name}", past_cables=True), "trial-0000")

    def give_command(self, node: Node, log: Path) -> subprocess.Popen[bytes]:
        space = {"loss.cycle": {"choice": [10.0]}}
        sweep = {"name": self.name, "storage": self.lab.uri("sweeps"), "train": str(self.file), "space": space}
        file = self.lab.folder / f"{self.name}-sweep.yaml"
        file.write_text(yaml.safe_dump(sweep | {"search": "grid"}))
        command = [sys.executable, "-m", "tuning", "sweep", "--config", str(file), "--address", self.lab.address]
        return node.popen(command, log)
