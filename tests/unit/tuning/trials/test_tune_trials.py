"""What `tuning.trials.tune_trials` uses of Ray Tune without its promise; a new version of Ray must still have it."""

import inspect
from pathlib import Path

import pytest
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from sweep_records import trial

from tuning.trials import tune_trials


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (TuneController.pause_trial, {"trial", "should_checkpoint"}),
        (Trial.set_config, {"config"}),
        (ASHAScheduler.on_trial_add, {"tune_controller", "trial"}),
        (ASHAScheduler.on_trial_result, {"tune_controller", "trial", "result"}),
    ],
)
def test_methods_have_the_parameters(function: object, parameters: set[str]) -> None:
    assert callable(function)
    assert inspect.signature(function).parameters.keys() >= parameters


def test_a_trial_of_tunes_has_the_attributes(tmp_path: Path) -> None:
    tunes = Trial("sweep", stub=True, config={"trial": {"number": 3}})
    assert isinstance(tunes.trial_id, str)
    assert tunes.config == {"trial": {"number": 3}}
    assert isinstance(inspect.getattr_static(Trial, "error_file"), property)
    assert isinstance(inspect.getattr_static(Trial, "pickled_error_file"), property)
    # As keys of a scheduler's dictionaries.
    assert hash(tunes) is not None


def test_failures_that_tune_retries_can_be_forgiven() -> None:
    tunes = Trial("sweep", stub=True, config={})
    tunes.run_metadata.num_failures = tunes.max_failures + 1
    assert not tunes.should_recover()
    tune_trials.forgive(tunes)
    assert tunes.should_recover()


def test_a_restarted_trial_has_the_new_config_and_no_decision_is_left_to_tune() -> None:
    paused = []

    class Controller:
        def pause_trial(self, trial: Trial, should_checkpoint: bool) -> None:
            paused.append((trial, should_checkpoint))

    tunes = Trial("sweep", stub=True, config={"old": 1})
    assert tune_trials.restart(Controller(), tunes, {"new": 2}) == TrialScheduler.NOOP
    assert tunes.config == {"new": 2}
    assert paused == [(tunes, False)]


def test_a_scheduler_counts_what_is_replayed() -> None:
    """ASHA needs the id of a trial, and no more of it."""

    def decision(scheduler: ASHAScheduler, score: float) -> str:
        late = Trial("sweep", stub=True)
        scheduler.on_trial_add(None, late)
        return scheduler.on_trial_result(None, late, {"images": 100, "score": score})

    def scheduler() -> ASHAScheduler:
        return ASHAScheduler(
            time_attr="images", metric="score", mode="min", max_t=899, grace_period=100, reduction_factor=3
        )

    fresh, informed = scheduler(), scheduler()
    tune_trials.replay(informed, [trial(0, scores=(1.0, 1.0)), trial(1, scores=(1.0,))])
    assert (decision(fresh, 2.0), decision(informed, 2.0), decision(informed, 1.0)) == ("CONTINUE", "STOP", "CONTINUE")
