"""A trial for TensorBoard's HParams tab: what it overrides, and its score over the images seen.

One small file beside the events of the trial's run. It is written whole each time that there is news, and what it began with stays
as it was, so that a TensorBoard that is looking finds only more at its end.
"""

import io
import math
from typing import Any

from tuning.analysis.results import Trial

# TensorBoard reads a folder's files in the order of their names.
EVENTS = "tensorboard/events.out.tfevents.0000000000.hparams"
SCORE = "score"


def hparams_events(trial: Trial) -> bytes:
    """The file's content."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter
    from torch.utils.tensorboard.summary import hparams, scalar

    values = {field: hparam(value) for field, value in sorted(trial.overrides.items())}
    experiment, start, success = hparams(values, {SCORE: 0.0})
    events = [Event(file_version="brain.Event:2"), Event(summary=experiment), Event(summary=start)]
    for each in trial.evaluations:
        if math.isfinite(each.score):
            events.append(Event(step=each.images, wall_time=each.time, summary=scalar(SCORE, each.score)))
    if trial.state in ("finished", "stopped"):
        events.append(Event(summary=success))
    content = io.BytesIO()
    writer = RecordWriter(content)
    for event in events:
        writer.write(event.SerializeToString())
    return content.getvalue()


def hparam(value: Any) -> str | int | float | bool:
    """A list as text: TensorBoard's hyper-parameters are none."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return value if isinstance(value, str | int | float | bool) else str(value)
