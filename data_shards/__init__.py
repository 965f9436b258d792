"""Image folders -> WebDataset shards -> an exact, elastic, resumable stream of uint8 batches."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from data_shards.errors import StorageAwayError, UserError
from data_shards.version import __version__ as __version__

if TYPE_CHECKING:
    from data_shards.dataset.epoch_plan import rank_share
    from data_shards.dataset.manifest import Dataset, SplitInfo, open_dataset
    from data_shards.stream.config import StreamConfig
    from data_shards.stream.read import read_split
    from data_shards.stream.unpaired import UnpairedBatch, UnpairedStream

_HOME = {
    "Dataset": "dataset.manifest",
    "SplitInfo": "dataset.manifest",
    "StreamConfig": "stream.config",
    "UnpairedBatch": "stream.unpaired",
    "UnpairedStream": "stream.unpaired",
    "open_dataset": "dataset.manifest",
    "rank_share": "dataset.epoch_plan",
    "read_split": "stream.read",
}

__all__ = [
    "Dataset", "SplitInfo", "StorageAwayError", "StreamConfig", "UnpairedBatch", "UnpairedStream", "UserError",
    "open_dataset", "rank_share", "read_split",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # Imported on first use: torch takes seconds, and `python -m data_shards --help` should not.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    # For completion in a notebook or a shell.
    return sorted({*globals(), *__all__})
