"""Reads `run.json` and `state.json` of a run's folder, and checks that they have the shape that readers rely on."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter
from typing_extensions import TypedDict

from cluster.records.metrics_file import MOST_IMAGES
from data_shards.storage.checked import checked
from data_shards.storage.folder import RunFolder
from nla_cyclegan.weights.checkpoint import complete_checkpoints
from nla_cyclegan.weights.stored_score import ABOUT

OPEN = ConfigDict(extra="allow")
Images = Annotated[int, Field(ge=0, lt=MOST_IMAGES)]


class ClockFields(TypedDict, total=False):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    epoch: Images
    total: Images


class AboutFields(TypedDict, total=False):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    config: dict[str, Any]
    dataset: str
    clock: ClockFields
    metrics: dict[str, Any]
    origin: dict[str, Any]


class StateFields(TypedDict, total=False):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    state: str
    reason: str | None
    images: Images | None
    time: float


ABOUT_REMEDY = "delete it: the run's folder and each checkpoint have a copy, and one is enough"
ABOUT_SHAPE, STATE_SHAPE = TypeAdapter(AboutFields), TypeAdapter(StateFields)


def read_about(folder: RunFolder, name: str) -> dict[str, Any]:
    """A run.json, of the run or of one of its checkpoints; empty where there is none. Raises: UserError when it is damaged."""
    return _read(folder, name, ABOUT_SHAPE, ABOUT_REMEDY)


def about_run(folder: RunFolder) -> dict[str, Any]:
    """A run's run.json. Where it is gone, as of a folder copied in part or a bucket that deletes what is old, its newest checkpoint's."""
    if about := read_about(folder, ABOUT):
        return about
    copies = (read_about(folder, f"{name}/{ABOUT}") for name in complete_checkpoints(folder))
    return next(filter(None, copies), {})


def read_state(folder: RunFolder, name: str) -> dict[str, Any]:
    """A state.json; see `read_about`."""
    return _read(folder, name, STATE_SHAPE, "delete it: a run writes it again at its next start")


def _read(folder: RunFolder, name: str, shape: TypeAdapter[Any], remedy: str) -> dict[str, Any]:
    content = folder.read_json(name, remedy)
    return {} if content is None else dict(checked(shape, content, f"{folder.label}/{name}", remedy))
