"""What became of a run that a fault hit, held against one that nothing hit: the rows of fault_table.py."""

import fault_table as table
import tiny
import torch
from runs import Run
from torch import Tensor

# Of a run in fp64 whose number of workers was not the same all the time.
TOLERANCE = 1e-6

ROWS: list[table.Row] = []


def came_through(run: Run, fault: str, since: float, expected: dict[str, Tensor], *, bitwise: bool = True) -> table.Row:
    """Wait for the run's end, check it, and put it into the table.

    It is as if nothing had happened: the end was reached, each step has one record in the store, and every tensor is that
    of the undisturbed run: bit by bit, or within TOLERANCE where the number of workers was not the same all the time.

    Args:
        since: when the fault came (monotonic).
    """
    status = run.end()
    run.diary.close()
    assert status == 0, run.said[-6000:]
    furthest = distance(tiny.newest(run.folder), expected)
    answer = (
        "equal bit for bit"
        if furthest == 0
        else f"equal to {furthest:.0e} (fp64)"
        if furthest < TOLERANCE
        else "DIFFERENT"
    )
    row = table.Row(fault, run.diary.standstill_s(since), run.diary.repeated, answer)
    ROWS.append(row)
    wanted = list(range(run.batch, run.images + 1, run.batch))
    assert sorted(set(run.diary.steps)) == wanted
    assert run.recorded() == wanted
    assert furthest == 0 if bitwise else furthest < TOLERANCE, furthest
    return row


def distance(got: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference between two checkpoints' tensors; 0 where all bits are the same."""
    assert got.keys() == expected.keys()
    if all(torch.equal(got[key], value) for key, value in expected.items()):
        return 0.0
    return max(float((got[key] - value).abs().max()) for key, value in expected.items() if value.numel())
