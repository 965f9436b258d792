"""The ranking as rows, the same for the page, `python -m tuning results` and its files."""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from tuning.analysis.cost import seconds_of
from tuning.analysis.groups import grouped, ranked_groups
from tuning.analysis.measures import SCORE, Reduction, metrics_of
from tuning.analysis.results import Trial, aligned, choice_text, short_names

Row = dict[str, Any]
# Larger integers are not exact as 64-bit floats.
EXACT = 2**53


def rows(
    trials: Sequence[Trial],
    collapsed: Sequence[str] = (),
    metric: str = SCORE,
    reduction: Reduction = "last",
    price: float | None = None,
) -> list[Row]:
    """One row a group, best first; without collapsed fields, and of a single trial, a group is a trial.

    Args:
        collapsed: dotted fields that trials of a group may differ in.
        metric: the ranking's, with `reduction`, which all metrics have.
        price: of a worker for an hour.

    Returns: rank, number of the trial, or numbers of a group's trials and how many have the measure, state, images, metrics,
        of a group their means, `margin`, half of the 95 % interval of the measure's mean, seconds of workers, cost, values of
        the fields, reason. None where a value is not known.
    """
    metrics = metrics_of(trials)
    fields = sorted({field for trial in trials for field in trial.overrides} - set(collapsed))
    found = []
    for rank, (group, _) in enumerate(ranked_groups(grouped(trials, collapsed), metric, reduction), start=1):
        intervals = {name: group.interval(name, reduction) for name in metrics}
        seconds = sum(map(seconds_of, group.trials))
        numbers, margin = [trial.number for trial in group.trials], intervals[metric].margin
        row: Row = {"rank": rank}
        row |= {"trials": " ".join(map(str, numbers)), "n": intervals[metric].n} if collapsed else {"trial": numbers[0]}
        row |= {"state": group.state, "images": sum(trial.images for trial in group.trials)}
        row |= {name: each.mean if each.n else None for name, each in intervals.items()}
        row |= {"margin": margin if math.isfinite(margin) else None} if collapsed else {}
        row |= {"seconds": seconds} | ({} if price is None else {"cost": seconds / 3600 * price})
        row |= {field: plain(group.first.overrides.get(field)) for field in fields}
        row["reason"] = next((trial.reason for trial in group.trials if trial.reason), None)
        found.append(row)
    return found


def as_csv(found: Sequence[Row]) -> str:
    """With a heading; empty cells where a value is not known."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(found[0]) if found else ["rank"], lineterminator="\n")
    writer.writeheader()
    for row in found:
        writer.writerow({name: str(value).lower() if isinstance(value, bool) else value for name, value in row.items()})
    return text.getvalue()


def as_parquet(found: Sequence[Row]) -> bytes:
    """One column a name; of a column whose values differ in type all are text."""
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    columns = {name: _column([row[name] for row in found]) for name in (found[0] if found else ())}
    parquet.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue())


def as_table(found: Sequence[Row], trials: Sequence[Trial], metric: str = SCORE) -> str:
    """The columns that fit on a terminal, aligned."""
    names = list(found[0]) if found else []
    fields = sorted({field for trial in trials for field in trial.overrides} & set(names))
    kept = ("rank", "trial", "trials", "n", "state", "images", metric, "margin")
    columns = [name for name in kept if name in names]
    body = [[_cell(row[name]) for name in (*columns, *fields)] for row in found]
    return aligned([[*columns, *short_names(fields)], *body])


def plain(value: Any) -> Any:
    """A value of a field as a number or a text, which tables have in one cell; a number that JSON readers round is text."""
    is_plain = isinstance(value, bool | str) or (isinstance(value, int | float) and abs(value) <= EXACT)
    return value if is_plain else choice_text(value)


def _column(values: list[Any]) -> list[Any]:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or len(kinds) < 2:
        return values
    return [None if value is None else str(value) for value in values]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)
