"""The configuration of a run: the sections' own classes, nested, and how two configurations differ."""

import re
from contextlib import suppress
from functools import cache
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from cluster.checkpoints.config import CheckpointConfig
from cluster.evaluation.config import ValidationConfig
from cluster.records.config import ObserveConfig
from cluster.records.fields import flat
from cluster.settings.workers.scaling import ScalingConfig
from data_shards import StreamConfig
from data_shards.command_line import whole_number
from data_shards.errors import counted
from data_shards.storage.checked import shortened
from data_shards.storage.uri import SECRET_OPTION
from nla_cyclegan import InitConfig, LossConfig, ModelConfig, OptimizerConfig, ScheduleConfig, StepConfig

# s3://KEY:SECRET@bucket, abfs://...?client_secret=SECRET. A secret may hold a slash; a port is none.
CREDENTIALS = re.compile(rf"://[^/?@:]*:(?!\d+(/|$))[^?]*@|{SECRET_OPTION}", re.IGNORECASE)


def has_credentials(uri: str) -> bool:
    return CREDENTIALS.search(uri) is not None


def without_credentials(uri: str) -> str:
    """The URI. A configuration lies in the run's folder and in Ray's dashboard for all to read."""
    if has_credentials(uri):
        # A type of its own, because the message must not be followed by what was received.
        raise PydanticCustomError(
            "credentials",
            "has credentials in its URI, which would be stored with the run and shown by Ray; take them out and give "
            "them in the environment of every machine (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AZURE_STORAGE_KEY) or by their role",
        )
    return uri


Uri = Annotated[str, AfterValidator(without_credentials)]
Place = Annotated[Uri, Field(min_length=1)]
# Of a folder: file systems allow so many bytes.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=255)]


def with_whole_numbers(model: type[BaseModel], fields: Any) -> Any:
    """The fields given for a model, in which 1e6, which YAML 1.1 reads as text, is a whole number where the model has one.

    `yes` and `on`, which YAML reads as true, are no numbers: they become text, which the field itself refuses.
    """
    if not isinstance(fields, dict):
        return fields
    found = dict(fields)
    kinds_of = _kinds(model)
    for name, value in fields.items():
        kind, kinds = kinds_of.get(name, (None, set()))
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found[name] = with_whole_numbers(kind, value)
        elif isinstance(value, bool) and kinds & {int, float} and bool not in kinds:
            found[name] = str(value).lower()
        elif isinstance(value, list):
            found[name] = [str(each).lower() if isinstance(each, bool) else each for each in value]
        elif isinstance(value, str) and int in kinds:
            # What is none is refused by the field itself.
            with suppress(ValueError):
                found[name] = whole_number(value)
    return found


@cache
def _kinds(model: type[BaseModel]) -> dict[str, tuple[Any, set[Any]]]:
    """Of each field its annotation, and that with the members of a union: a sweep validates thousands of configurations."""
    kinds = {name: field.annotation for name, field in model.model_fields.items()}
    return {name: (kind, {kind, *get_args(kind)}) for name, kind in kinds.items()}


class DataConfig(StreamConfig):
    """The dataset and how its images reach the model."""

    a: Place | None = None
    """With `b`, in place of `uri`: images of domain A (Monets), a folder, a URI, or a text file with a path in each line. They are packed first,
    into the user's cache, or on a cluster into `storage`, and found there as long as no image changes. A tenth is held out."""
    b: Place | None = Field(default=None, validate_default=True)
    """Images of domain B (photos)."""
    uri: Uri = Field(default="", validate_default=True)
    """The dataset: the folder or URI that `python -m data_shards pack` wrote."""
    global_batch: int = Field(default=1, ge=1)
    """Image pairs in one step over all workers; each worker's part is derived from it."""

    @field_validator("b")
    @classmethod
    def _goes_with_a(cls, b: str | None, others: ValidationInfo) -> str | None:
        a = others.data.get("a", b)
        if a and b is None:
            raise PydanticCustomError("missing", "Field required")
        if b and a is None:
            raise ValueError("needs data.a, the images of the other domain")
        return b

    @field_validator("uri", mode="before")
    @classmethod
    def _is_one_dataset(cls, uri: Any, others: ValidationInfo) -> Any:
        folders = [name for name in ("a", "b") if others.data.get(name)]
        if uri == "" and not folders and {"a", "b"} <= others.data.keys():
            raise PydanticCustomError("missing", "Field required")
        if uri != "" and folders:
            raise ValueError(f"already names a dataset; give it, or data.{' and data.'.join(folders)}")
        return uri

    @field_validator("crop_size")
    @classmethod
    def _halves_twice(cls, size: int) -> int:
        if size % 4:
            raise ValueError("must be a multiple of 4, because the generator halves sides twice")
        return size


class RunConfig(BaseModel):
    """One training run. Its sections are configured where their code is."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: Name = "nla-cyclegan"
    """Name of the run: its folder in `storage`. The same name again continues the run."""
    storage: Place = "runs"
    """Where runs are kept: a folder, or a URI such as s3://bucket/runs."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Start of all randomness: initial weights, order of the samples, augmentation, image pool."""
    data: DataConfig
    model: ModelConfig = ModelConfig()
    init: InitConfig = InitConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    step: StepConfig = StepConfig()
    scaling: ScalingConfig = ScalingConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    observe: ObserveConfig = ObserveConfig()
    validation: ValidationConfig = ValidationConfig()

    @model_validator(mode="before")
    @classmethod
    def _with_whole_numbers(cls, fields: Any) -> Any:
        return with_whole_numbers(cls, fields)

    @model_validator(mode="after")
    def _crops_are_large_enough(self) -> "RunConfig":
        # Its strided convolutions halve the sides, a last one takes a pixel, and an instance norm needs more than one.
        layers = self.model.discriminator.num_layers
        if self.data.crop_size < 3 * 2**layers:
            raise ValueError(
                f"data.crop_size: {self.data.crop_size} px is too small for model.discriminator.num_layers {layers}; allowed: "
                f"from {3 * 2**layers} px on, or fewer layers"
            )
        return self

    @model_validator(mode="after")
    def _workers_have_images(self) -> "RunConfig":
        workers, batch = self.scaling.max_workers, self.data.global_batch
        if workers > batch:
            raise ValueError(
                f"scaling.workers: {workers} workers cannot share a data.global_batch of {counted(batch, 'image pair')}; "
                f"allowed: up to {counted(batch, 'worker')}"
            )
        return self


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Fields that differ between two configurations as JSON values, as `field: old there, new here`."""
    there, here = flat(old), flat(new)
    changed = [field for field in sorted(there.keys() | here.keys()) if there.get(field) != here.get(field)]
    shown = {field: [shortened(str(values.get(field))) for values in (there, here)] for field in changed}
    return [f"{shortened(field)}: {old} there, {new} here" for field, (old, new) in shown.items()]
