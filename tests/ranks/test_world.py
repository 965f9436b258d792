"""What crosses between ranks: values arrive as they were, and never as pickles."""

import math
import pickle
import struct
from typing import Any

import pytest
import torch.distributed as dist
from group import Ranks

from cluster.ranks import world as module
from cluster.ranks.world import World

FLOATS = [0.1, -0.0, 5e-324, 1.7976931348623157e308, math.inf, -math.inf]
VALUES = [*FLOATS, 2**63 - 1, -(2**63), "eins, zwei: \u00e4\U0001f3a8\n", "", None, True, [], {"a": {"b": [1, 2.5]}}]


def refuse(*arguments: Any, **options: Any) -> Any:
    raise AssertionError("a pickle crosses between ranks")


def exchanged(pieces: int) -> tuple[list[Any], Any, bytes, float]:
    distributed = dist.distributed_c10d
    with pytest.MonkeyPatch.context() as patch:
        for name in ("loads", "dumps", "Pickler", "Unpickler"):
            patch.setattr(pickle, name, refuse)
        patch.setattr(distributed, "_pickler", refuse)
        patch.setattr(distributed, "_unpickler", refuse)
        patch.setattr(module, "PIECE_BYTES", pieces)
        world = World.current()
        gathered = world.gather([world.rank, "x" * 100 * world.rank, VALUES])
        broadcast = world.broadcast(VALUES if world.rank == 0 else None)
        sent = world.broadcast_bytes(bytes(range(100)) if world.rank == 1 else None, 100, source=1)
        nan = world.gather(math.nan)[1]
        world.barrier()
    return gathered, broadcast, sent, nan


@pytest.mark.parametrize("pieces", [7, 1000])
def test_values_arrive_exactly_and_no_pickle_crosses(ranks: Ranks, pieces: int) -> None:
    for gathered, broadcast, sent, nan in ranks.run(3, exchanged, pieces):
        assert gathered == [[rank, "x" * 100 * rank, VALUES] for rank in range(3)]
        assert broadcast == VALUES
        assert [struct.pack("d", value) for value in broadcast[: len(FLOATS)]] == [struct.pack("d", v) for v in FLOATS]
        assert sent == bytes(range(100))
        assert math.isnan(nan)


def test_alone_values_are_what_they_are_among_many() -> None:
    assert World().gather((1, {"a": (2.5, None)})) == [[1, {"a": [2.5, None]}]]
    assert World().broadcast(math.inf) == math.inf
    assert World().broadcast_bytes(b"", 0) == b""
