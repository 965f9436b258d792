"""The table of faults in cluster/README.md: rows are measured by `make chaos`, kept in a file of results, and put into the page.

python tests/helpers/fault_table.py        # put the measured rows into the page again
"""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "cluster" / "README.md"
RESULTS = ROOT / "tests" / "benchmarks" / "results" / "chaos.json"
BEGIN, END = "<!-- chaos: made by make chaos -->\n", "<!-- chaos: end -->\n"
COLUMNS = ("fault", "seconds to recover", "steps repeated", "weights")


@dataclass(frozen=True)
class Row:
    """What became of one run.

    Attributes:
        seconds: the longest time without a new step, from the fault on.
        repeated: steps that were done again.
        weights: the final ones, against those of an undisturbed run.
    """

    fault: str
    seconds: float
    repeated: int
    weights: str

    def cells(self) -> tuple[str, ...]:
        return self.fault, f"{self.seconds:.0f}", str(self.repeated), self.weights


def keep(rows: Sequence[Row], results: Path = RESULTS) -> None:
    """Put newly measured rows in the place of earlier ones of the same faults."""
    known = {row["fault"]: row for row in read(results)}
    for row in rows:
        known[row.fault] = asdict(row) | {
            "measured": datetime.now(UTC).date().isoformat(),
            "commit": _commit(),
            "on": machine(),
        }
    results.write_text(json.dumps(list(known.values()), indent=1) + "\n")


def read(results: Path = RESULTS) -> list[dict[str, Any]]:
    return json.loads(results.read_text()) if results.exists() else []


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as the page shows them."""
    found = [Row(**{name: row[name] for name in Row.__dataclass_fields__}) for row in rows]
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(row.cells() for row in found)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def put_in(page: str, rows: Sequence[dict[str, Any]]) -> str:
    """The page with this table between its two marks."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + markdown(rows) + END + rest.partition(END)[2]


def machine() -> str:
    return f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores"


def _commit() -> str:
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()


if __name__ == "__main__":
    PAGE.write_text(put_in(PAGE.read_text(), read()))
