"""The data sent to a worker and back: the images of a call, and the report on them."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from cluster.translation.workers import Workers

# Concurrent calls per worker: one's last images are written while the other's first ones are read.
CALLS = 2
# Batches per call, which are repeated if its worker is lost: on a GPU they take a second or two.
BATCHES_A_CALL, BATCHES_A_CALL_ON_CORES = 16, 4


@dataclass(frozen=True)
class Report:
    """The outcome of a call.

    Attributes:
        done: number of images that were written.
        left_out: why others were not.
        error: what ended the call, for the user; `retryable` as of a UserError.
    """

    done: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    retryable: bool = False


def calls(images: pa.Table, batch: int, workers: Workers) -> Iterator[pa.Table]:
    """Split the images into calls, small enough that every worker has several and all end at about the same time."""
    most = batch * (BATCHES_A_CALL if workers.use_gpu else BATCHES_A_CALL_ON_CORES)
    count = max(1, min(most, -(-images.num_rows // (2 * CALLS * workers.at_once))))
    columns = images.select(["name", "target", "size"]).combine_chunks()
    for start in range(0, images.num_rows, count):
        yield columns.slice(start, count)


def sent(images: pa.Table) -> bytes:
    """Serialise a table; for a slice only its own rows."""
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, images.schema) as writer:
        writer.write_table(images)
    return stream.getvalue().to_pybytes()


def received(images: bytes) -> pa.Table:
    with pa.ipc.open_stream(images) as reader:
        return reader.read_all()
