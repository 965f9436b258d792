"""A lab for the tests here, what undisturbed runs end with, and the table of what happened."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import fault_table as table
import pytest
import tiny
import yaml
from hosts import cannot_make_hosts
from lab import ROOT, Lab, lab
from torch import Tensor
from verdict import ROWS

from data_shards.storage.folder import RunFolder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.pack_dataset(tmp_path_factory.mktemp("data"))


# Not for the session: Ray on several nodes takes its share of the machine as long as it is there.
@pytest.fixture(scope="module")
def shared_lab(data: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if reason := cannot_make_hosts():
        pytest.skip(reason)
    with lab(tmp_path_factory.mktemp("lab"), data) as laboratory:
        yield laboratory


@pytest.fixture
def laboratory(shared_lab: Lab) -> Iterator[Lab]:
    """A lab in which no run is under way any more when the test ends; its nodes stay for the next one, if nothing else is."""
    before = len(ROWS)
    yield shared_lab
    if len(ROWS) == before:
        for node in shared_lab.nodes:
            node.kill()


@pytest.fixture(scope="session")
def undisturbed(
    data: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int, dict[str, Any]], dict[str, Tensor]]:
    """What a run with these changed settings ends with, of that many gloo ranks on this machine: each computed once."""
    known: dict[str, dict[str, Tensor]] = {}

    def compute(ranks: int, changes: dict[str, Any]) -> dict[str, Tensor]:
        key = f"{ranks} {changes}"
        if key not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            file = folder / "run.yaml"
            file.write_text(yaml.safe_dump(tiny.settings(data, folder / "runs", **changes)))
            # The dashes keep torchrun from taking --local for an option of its own.
            launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m", "--"]
            command = [sys.executable, "-m", *launcher, "cluster", "train", "--local", "--config", str(file)]
            # A thread each, as on the lab's machines of one core: sums over more threads differ in their last bits.
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, env=environment)
            assert done.returncode == 0, done.stderr
            known[key] = tiny.newest(RunFolder(str(folder / "runs"), "tiny"))
        return known[key]

    return compute


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not ROWS:
        return
    lines = [table.COLUMNS, *(row.cells() for row in ROWS)]
    widths = [max(len(cells[column]) for cells in lines) for column in range(len(table.COLUMNS))]
    terminalreporter.section("faults")
    for cells in lines:
        terminalreporter.write_line("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)))
    if os.environ.get("CHAOS_TABLE"):
        table.keep(ROWS)
