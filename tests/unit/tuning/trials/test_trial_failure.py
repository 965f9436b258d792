"""Which failures of a trial are results, and which are left to Tune to try again."""

from typing import Any

import pytest

from data_shards.errors import StorageAwayError, UserError
from tuning.analysis.objective import DIVERGED
from tuning.trials import trial
from tuning.trials.trial import failure, train_trial


def reports(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[dict[str, Any]]:
    """What Tune is given by a trial that ends with this error."""
    reported: list[dict[str, Any]] = []

    def fail(settings: dict[str, Any]) -> None:
        raise error

    monkeypatch.setattr(trial, "_train_to_the_end", fail)
    monkeypatch.setattr(trial.tune, "report", reported.append)
    monkeypatch.setattr(trial, "set_environment", lambda own: None)
    train_trial({"trial": {"evaluations": [{"images": 40}, {"images": 80}]}})
    return reported


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UserError("data.uri: no dataset\n  there"), "data.uri: no dataset"),
        (ZeroDivisionError("a bug"), "ZeroDivisionError: a bug"),
        (RuntimeError(""), "RuntimeError:"),
    ],
)
def test_what_would_fail_again_is_a_result(error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (result,) = reports(monkeypatch, error)
    assert (result["state"], result["reason"]) == ("failed", reason)
    assert (result["images"], result["score"]) == (80, DIVERGED)
    assert "Traceback" in result["error"]
    assert failure(error, [])["images"] == 0


def test_storage_that_is_away_is_for_tune_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageAwayError):
        reports(monkeypatch, StorageAwayError("cannot read"))
