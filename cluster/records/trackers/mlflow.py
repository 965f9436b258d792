"""MLflow: `observe.sinks: [mlflow]`, of the extra of that name (mlflow-skinny: the client without the server).

The library reads its own variables: MLFLOW_TRACKING_URI, MLFLOW_TRACKING_TOKEN, MLFLOW_TRACKING_USERNAME and _PASSWORD.
"""

import os
import time
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from PIL import Image

from cluster.records.fields import flat
from cluster.records.metrics_file import IMAGES, NOT_DRAWN, Record
from cluster.records.trackers.tracked_run import TrackedRun

EXPERIMENT = "nla-cyclegan"
TAG = "nla_cyclegan.run"
# What MLflow's server takes of parameters at once, and of one value.
PARAMETERS, LONGEST = 100, 6000


class MlflowTracker:
    """The run as one of MLflow's, whose steps are the images seen; resuming the one resumes the other, found by its tag."""

    def __init__(self, run: TrackedRun) -> None:
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            raise RuntimeError("no MLFLOW_TRACKING_URI in the environment of the machine of rank 0")
        self.run, self._images = run, 0
        self._client = MlflowClient()
        experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT))
        found = self._client.search_runs([experiment], filter_string=f"tags.`{TAG}` = '{run.id}'", max_results=1)
        tags = {TAG: run.id, "command": run.command, "folder": run.folder, "attempt": run.attempt}
        if found:
            self._id, known = found[0].info.run_id, found[0].data.params
            self._client.update_run(self._id, status="RUNNING")
            for name, value in tags.items():
                self._client.set_tag(self._id, name, value)
        else:
            self._id, known = self._client.create_run(experiment, tags=tags, run_name=run.name).info.run_id, {}
        # A parameter cannot be changed: the whole configuration, as it is by now, is a file beside them.
        self._client.log_dict(self._id, dict(run.config), "config.json")
        new = [Param(name, str(value)[:LONGEST]) for name, value in flat(run.config).items() if name not in known]
        for some in range(0, len(new), PARAMETERS):
            self._client.log_batch(self._id, params=new[some : some + PARAMETERS])

    def start(self, images_seen: int) -> None:
        self._images = images_seen

    def write(self, record: Record) -> None:
        self._images = int(record[IMAGES])
        at_ms = int(1000 * record.get("time", time.time()))
        values = [
            Metric(name, float(value), at_ms, self._images) for name, value in record.items() if name not in NOT_DRAWN
        ]
        self._client.log_batch(self._id, metrics=values)

    def picture(self, path: Path, images_seen: int) -> None:
        with Image.open(path) as picture:
            self._client.log_image(self._id, picture.convert("RGB"), key="previews", step=images_seen)

    def close(self) -> None:
        done = self._images >= self.run.total_images
        self._client.set_terminated(self._id, "FINISHED" if done else "KILLED")

    def _experiment(self, name: str) -> str:
        """The id of the experiment of that name, which is made where there is none."""
        if found := self._client.get_experiment_by_name(name):
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(name))
        except MlflowException:
            # Another run has made it at the same moment.
            if found := self._client.get_experiment_by_name(name):
                return str(found.experiment_id)
            raise
