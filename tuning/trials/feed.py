"""Gives Ray Tune the trials of a sweep one after the other, each when there is room for it."""

from collections.abc import Iterator
from typing import Any

from ray.tune.search import Searcher


class Feed(Searcher):
    """The search algorithm that Tune sees.

    Args:
        settings: what `train_trial` is told about each trial; the next one is asked for when it is to begin.
    """

    def __init__(self, settings: Iterator[dict[str, Any]]) -> None:
        super().__init__(metric="score", mode="min")
        self._settings = settings

    def suggest(self, trial_id: str) -> Any:
        settings = next(self._settings, None)
        return Searcher.FINISHED if settings is None else {"trial": settings}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Storage knows."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Storage keeps all there is."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles it for a restore of its own, which nobody asks for.
        return {}
