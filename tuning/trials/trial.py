"""The function that Ray Tune calls for each trial: train a run of `cluster` and report its scores."""

import traceback
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from cluster.group.driver import build_trainer
from cluster.group.progress import forget_requests
from cluster.group.retry import retry_training
from cluster.machines.ray_internals import InCurrentGroup
from cluster.machines.session import set_environment
from cluster.ownership.attempt import Attempt
from cluster.records import events
from cluster.records.about import read_about
from cluster.records.run_state import outcome_recorded
from cluster.settings.config import RunConfig
from cluster.settings.preflight import Prepared, claim, prepare
from cluster.settings.workers.resources import Resources
from data_shards.errors import NonFiniteLossError, RunInterruptedError, UserError, counted
from data_shards.storage.folder import RunFolder
from nla_cyclegan.weights.checkpoint import complete_checkpoints
from nla_cyclegan.weights.stored_score import ABOUT
from tuning.analysis.objective import DIVERGED, ObjectiveConfig, evaluation_of, evaluations
from tuning.analysis.results import trial_name
from tuning.trials.exploit import take_over
from tuning.trials.scheduling import REPEATED


class ReportEvaluations(TuneReportCallback):
    """Reports evaluations to Tune, from Ray Train's controller.

    The trial itself reports the last one, after the last checkpoint is stored: a scheduler may stop a trial at a report.
    """

    def __init__(self, objective: ObjectiveConfig, total: int) -> None:
        super().__init__()
        self.objective, self.total = objective, total

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        evaluation = evaluation_of(metrics[0], self.objective)
        if evaluation and evaluation["images"] < self.total:
            super().after_report(run_context, [evaluation], None)


def train_trial(settings: dict[str, Any]) -> None:
    """Train one trial to its end, from its newest checkpoint if it has one.

    A failure is a result, so that Tune tries again only what may pass: it restarts a trial whose process was lost, or that
    raises because storage stays away.

    Args:
        settings: `trial`, with the run's `config` and the sweep's `objective` as JSON values, its `resources`, the
            `evaluations` so far, the `exploit` that it begins with, if any, and the `attempt` that owns the sweep's folder.
    """
    set_environment(own=False)
    try:
        _train_to_the_end(settings["trial"])
    except Exception as error:
        if getattr(error, "retryable", False):
            raise
        tune.report(failure(error, settings["trial"]["evaluations"]))


def failure(error: Exception, evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The result of a trial that failed: no score, at the images of its last evaluation."""
    reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return {
        "images": evaluations[-1]["images"] if evaluations else 0,
        "score": DIVERGED,
        "state": "failed",
        "reason": reason.strip().partition("\n")[0],
        "error": "".join(traceback.format_exception(error)),
    }


def _train_to_the_end(trial: dict[str, Any]) -> None:
    config, objective = RunConfig.model_validate(trial["config"]), ObjectiveConfig(**trial["objective"])
    attempt = Attempt(**trial["attempt"])
    if exploit := trial["exploit"]:
        donor = RunFolder(config.storage, trial_name(exploit["donor"]))
        take_over(RunFolder(config.storage, config.name), donor, config, exploit["serial"], exploit["images"], attempt)
    prepared = prepare(config)
    # A scheduler of this session has not seen earlier evaluations: those in the trial's record, and those not there yet.
    known = {each["images"]: each for each in trial["evaluations"] if each["images"] <= prepared.images_seen}
    known |= {each["images"]: each for each in evaluations(prepared.folder, objective, prepared.images_seen)}
    decided = {each["images"] for each in trial["evaluations"]}
    for images in sorted(known):
        tune.report({**known[images], REPEATED: images in decided})
    if not prepared.finished:
        claim(prepared, attempt)
        try:
            _train(prepared, Resources(**trial["resources"]), objective, attempt)
        except NonFiniteLossError as error:
            done = evaluations(prepared.folder, objective)
            images = done[-1]["images"] if done else 0
            tune.report({"images": images, "score": DIVERGED, "state": "diverged", "reason": str(error)})
            return
        except RunInterruptedError as error:
            # The sweep was stopped: the trial goes on when that does.
            saved = f"saved at {counted(error.images, 'image')}"
            tune.report({"images": error.images, "score": DIVERGED, "state": "waiting", "reason": saved})
            return
    tune.report({**final_evaluation(prepared.folder, objective), "state": "finished"})


def final_evaluation(folder: RunFolder, objective: ObjectiveConfig) -> dict[str, Any]:
    """The evaluation in the last checkpoint: metrics.jsonl may reach storage later, or not at all.

    Raises: UserError when the checkpoint has none.
    """
    newest = next(iter(complete_checkpoints(folder)), None)
    if newest is None:
        raise UserError(f"{folder.label}: its training has ended without a checkpoint; choose another --name")
    evaluation = evaluation_of(read_about(folder, f"{newest}/{ABOUT}").get("metrics", {}), objective)
    if evaluation is None:
        raise UserError(
            f"{folder.label}/{newest}: it has no score: held-out images are damaged (`python -m data_shards verify` names them), or those "
            "of both domains are alike; a dataset with others needs another --name"
        )
    return evaluation


def _train(prepared: Prepared, resources: Resources, objective: ObjectiveConfig, attempt: Attempt) -> None:
    """Raises: NonFiniteLossError; RunInterruptedError; what else `retry_training` raises."""
    callbacks: list[Any] = [ReportEvaluations(objective, prepared.clock.total)]
    if not isinstance(resources.workers, tuple):
        callbacks.append(InCurrentGroup())

    def once() -> Mapping[str, Any]:
        forget_requests(prepared.config)
        return build_trainer(prepared.config, resources, attempt=attempt, callbacks=callbacks).fit().return_value

    with events.opened(prepared.folder, attempt.id, "driver"), outcome_recorded(prepared.folder, attempt):
        events.add(
            "start", f"at {counted(prepared.images_seen, 'image')}; {resources.summary}", images=prepared.images_seen
        )
        resumed = partial(events.furthest, prepared.folder, attempt.id, "rank-0", "resume")
        retry_training(once, prepared.folder, prepared.config.scaling.max_failures, print, resumed)
