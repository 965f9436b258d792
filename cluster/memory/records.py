"""Records that accompany copies of a run's state, because storage may not have them yet."""

import json

from cluster.records.metrics_file import IMAGES, Record, parse_records


class RecordsTail:
    """A sink that keeps the records since the last `take`."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def start(self, images_seen: int) -> None:
        self._lines.clear()

    def write(self, record: Record) -> None:
        self._lines.append(f"{json.dumps(record)}\n")

    def close(self) -> None:
        pass

    def take(self) -> bytes:
        taken, self._lines = self._lines, []
        return "".join(taken).encode()


def between(lines: bytes, after: int, until: int) -> list[Record]:
    """The records with after < images <= until, from lines of a metrics.jsonl."""
    return [record for record in parse_records(lines) if after < record[IMAGES] <= until]


def as_lines(records: list[Record]) -> bytes:
    return "".join(f"{json.dumps(record)}\n" for record in records).encode()
