"""What became of a run that a fault hit, held against one that nothing hit."""

from dataclasses import dataclass

import tiny
import torch
from runs import Run
from torch import Tensor

# Of a run in fp64 whose number of workers was not the same all the time.
TOLERANCE = 1e-6
COLUMNS = ("fault", "seconds to recover", "steps repeated", "final weights equal to the undisturbed run")


@dataclass(frozen=True)
class Row:
    fault: str
    seconds: float
    repeated: int
    equal: str

    def cells(self) -> tuple[str, ...]:
        return self.fault, f"{self.seconds:.1f}", str(self.repeated), self.equal


ROWS: list[Row] = []


def came_through(run: Run, fault: str, since: float, expected: dict[str, Tensor], *, bitwise: bool = True) -> Row:
    """Wait for the run's end, check it, and put it into the table.

    It is as if nothing had happened: the end was reached, each step has one record in the store, and every tensor is that
    of the undisturbed run: bit by bit, or within TOLERANCE where the number of workers was not the same all the time.

    Args:
        since: when the fault came (monotonic).
    """
    status = run.end()
    run.diary.close()
    assert status == 0, run.said[-6000:]
    got = tiny.newest(run.folder)
    assert got.keys() == expected.keys()
    furthest = max(
        (float((got[key] - value).abs().max()) for key, value in expected.items() if value.numel()), default=0
    )
    equal = all(torch.equal(got[key], value) for key, value in expected.items())
    answer = (
        "yes, bit for bit"
        if equal
        else f"{'yes' if furthest < TOLERANCE else 'NO'}, up to {furthest:.0e} (fp64, pool off)"
    )
    row = Row(fault, run.diary.standstill_s(since), run.diary.repeated, answer)
    ROWS.append(row)
    wanted = list(range(run.batch, run.images + 1, run.batch))
    assert sorted(set(run.diary.steps)) == wanted
    assert run.recorded() == wanted
    assert equal if bitwise else furthest < TOLERANCE, answer
    return row
