"""Image folders -> WebDataset shards -> an exact, elastic, resumable stream of uint8 batches."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import DataError, StorageAwayError

if TYPE_CHECKING:
    from .manifest import Dataset, SplitInfo, open_dataset
    from .plan import rank_share
    from .stream.config import StreamConfig
    from .stream.read import read_split
    from .stream.unpaired import UnpairedBatch, UnpairedStream

_HOME = {
    "Dataset": "manifest",
    "SplitInfo": "manifest",
    "StreamConfig": "stream.config",
    "UnpairedBatch": "stream.unpaired",
    "UnpairedStream": "stream.unpaired",
    "open_dataset": "manifest",
    "rank_share": "plan",
    "read_split": "stream.read",
}

__all__ = [
    "DataError",
    "Dataset",
    "SplitInfo",
    "StorageAwayError",
    "StreamConfig",
    "UnpairedBatch",
    "UnpairedStream",
    "open_dataset",
    "rank_share",
    "read_split",
]


def __getattr__(name: str) -> Any:
    # Imported on first use: torch takes seconds, and `python -m data_shards --help` should not.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
