"""Ends a sweep whose trials all fail alike: what keeps each of them from training is the same."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ray import tune

from data_shards.errors import UserError
from tuning.trials.record import last_line
from tuning.trials.scheduling import REPEATED
from tuning.trials.tune_trials import error_of

# Of trials, machines, processes and sizes: what differs between errors that are alike.
NUMBERS = re.compile(r"\d+")


class AlikeFailures(tune.Callback):
    """Counts the trials of this session that failed for the same reason.

    Args:
        limit: failures from which no trial begins, until one of those that run has a result; None: trials begin whatever fails.

    Attributes:
        is_over: whether no trial is left that could have one.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.is_over = self._any_trains = False
        self._counts: Counter[str] = Counter()
        self._reason = ""

    @property
    def is_suspected(self) -> bool:
        return not self._any_trains and self.limit is not None and max(self._counts.values(), default=0) >= self.limit

    def on_step_end(self, iteration: int, trials: Sequence[Any], **_: Any) -> None:
        self.is_over = self.is_suspected and not any(trial.status == "RUNNING" for trial in trials)

    def on_trial_result(
        self, iteration: int, trials: Sequence[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        if result.get("state") == "failed":
            self._count(result["reason"])
        elif not result.get(REPEATED):
            self._any_trains = True

    def on_trial_error(self, iteration: int, trials: Sequence[Any], trial: Any, **_: Any) -> None:
        self._count(last_line(error_of(trial)))

    def check(self) -> None:
        """Raises: UserError when it is over."""
        if self.is_over:
            raise UserError(
                f"the sweep ends, as {self.limit} trials failed for the same reason and none has trained (the same command tries again; "
                f"--budget.failures none goes through all trials): {self._reason}"
            )

    def _count(self, reason: str) -> None:
        kind = NUMBERS.sub("0", reason)
        self._counts[kind] += 1
        if self._counts[kind] == max(self._counts.values()):
            self._reason = reason
