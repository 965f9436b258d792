"""What a trial is: a run of `cluster`, measured by how near its translations of held-out images come to the other domain."""

import json
import math
from collections.abc import Mapping
from typing import Any

from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from cluster.config import RunConfig
from cluster.driver import build_trainer
from cluster.preflight import claim, prepare
from cluster.resources import Resources
from cluster.session import set_environment
from cluster.storage import RunFolder

DISTANCES = ("swd_A2B", "swd_B2A")
# For Tune alone, whose schedulers interpolate between scores: infinite ones would make that NaN.
DIVERGED = 1e9


def evaluation_of(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Images seen, score and distances of a record of metrics.jsonl, None where it is no evaluation.

    The score is the mean sliced Wasserstein distance (x 10^3) of both directions on held-out images: smaller is better.
    A loss is no score: generators that fool a weak discriminator have a low one.
    """
    if not all(name in record for name in DISTANCES):
        return None
    distances = {name: record[name] for name in DISTANCES}
    score = sum(distances.values()) / len(distances)
    return {"images": record["images"], "score": score if math.isfinite(score) else DIVERGED, "distances": distances}


def evaluations(folder: RunFolder, images_seen: float = math.inf) -> list[dict[str, Any]]:
    """Evaluations that a run wrote down up to these images."""
    found = []
    for line in (folder.read("metrics.jsonl") or b"").decode().splitlines():
        try:
            evaluation = evaluation_of(json.loads(line))
        except ValueError:
            # A crash cut it off.
            continue
        if evaluation and evaluation["images"] <= images_seen:
            found.append(evaluation)
    return found


class ReportEvaluations(TuneReportCallback):
    """Tells Tune about evaluations; lives in Ray Train's controller.

    The last one is left to the trial, which tells it when the last checkpoint is stored: a scheduler may end a trial there.
    """

    def __init__(self, total: int) -> None:
        super().__init__()
        self.total = total

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        # A checkpoint comes with the newest value of everything, and so with an old evaluation.
        evaluation = None if checkpoint else evaluation_of(metrics[0])
        if evaluation and evaluation["images"] < self.total:
            super().after_report(run_context, [evaluation], None)


def train_trial(settings: dict[str, Any]) -> None:
    """Train one trial from its newest checkpoint, if it has one, to its end.

    Args:
        settings: `trial`, with the run's `config` as JSON values and its `resources`.
    """
    set_environment(own=False)
    trial = settings["trial"]
    prepared = prepare(RunConfig.model_validate(trial["config"]))
    # What was evaluated before an interruption, for a scheduler that has not seen it.
    for evaluation in evaluations(prepared.folder, prepared.images_seen):
        tune.report(evaluation)
    if not prepared.finished:
        claim(prepared)
        reports = ReportEvaluations(prepared.clock.total)
        trainer = build_trainer(prepared.config, Resources(**trial["resources"]), callbacks=[reports])
        returned = trainer.fit().return_value
        if "error" in returned:
            done = evaluations(prepared.folder)
            images = done[-1]["images"] if done else 0
            tune.report({"images": images, "score": DIVERGED, "state": "diverged", "reason": returned["error"]})
            return
    tune.report({**evaluations(prepared.folder)[-1], "state": "finished"})
