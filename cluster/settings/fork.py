"""A fork: a run that starts from a checkpoint of another run, under its own name, for instance with a longer schedule."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from cluster.records.about import ABOUT_REMEDY, read_about
from cluster.records.fields import without
from cluster.records.metrics_file import IMAGES, METRICS, as_lines, read_records
from cluster.settings.config import RunConfig
from data_shards.errors import UserError
from data_shards.storage import locate
from data_shards.storage.checked import damaged, problem
from data_shards.storage.folder import RunFolder, split_uri
from nla_cyclegan.weights.checkpoint import CheckpointReader
from nla_cyclegan.weights.checkpoint_names import images_of
from nla_cyclegan.weights.commit import world_of
from nla_cyclegan.weights.references import NEWEST, Reference, select
from nla_cyclegan.weights.stored_score import ABOUT

ORIGIN = "origin"
"""Of a fork's run.json: where it comes from."""


def inherited(reference: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration that a fork has from the run that it is forked of, or from its own folder when that run has been deleted.

    Args:
        fields: what the fork is given itself, its name among it.
    """
    try:
        # It is written beside that run, not where that once was, or says that it was.
        origin = Origin.of(reference)
        return without(origin.config, ["name"]) | {"storage": origin.storage}
    except UserError as error:
        storage = str(fields.get("storage") or split_uri(Reference.of(reference).uri)[0])
        own = {} if error.retryable else read_about(RunFolder(storage, str(fields["name"])), ABOUT)
        if not (own.get(ORIGIN) and own.get("config")):
            raise
        return {**own["config"], "storage": storage}


@dataclass(frozen=True)
class Origin:
    """The checkpoint that a fork starts from.

    Attributes:
        folder: of the run that it belongs to.
        config: that run's, as JSON values.
        storage: where that run lies now.
    """

    folder: RunFolder
    checkpoint: str
    config: dict[str, Any]
    storage: str

    @classmethod
    def of(cls, reference: str) -> "Origin":
        """Of RUN, RUN@best or RUN@120000. Raises: UserError where there is no complete checkpoint."""
        parsed = Reference.of(reference)
        checkpoint = select(locate(parsed.uri), parsed.choice or NEWEST).name
        storage, name = split_uri(parsed.uri)
        folder = RunFolder(storage, name)
        config = (read_about(folder, ABOUT) or read_about(folder, f"{checkpoint}/{ABOUT}")).get("config")
        if not config or not world_of(folder.files_of(checkpoint)):
            raise UserError(
                f"--fork-of {reference}: {folder.label} has no complete checkpoint of a run; give RUN or RUN@120000"
            )
        return cls(folder, checkpoint, config, storage)

    @property
    def images(self) -> int:
        return images_of(self.checkpoint)

    def __str__(self) -> str:
        return f"{self.folder.label}/{self.checkpoint}"

    @staticmethod
    def check_name(reference: str, folder: RunFolder) -> None:
        """Raises: UserError where the fork's folder is the run's own."""
        if RunFolder(*split_uri(Reference.of(reference).uri)).label == folder.label:
            raise UserError(
                f"--fork-of {reference}: the fork needs a --name of its own; without --fork-of the run continues"
            )

    def check(self, config: RunConfig) -> None:
        """Raises: UserError where the state in the checkpoint is not that of a run with this configuration."""
        try:
            theirs, ours = RunConfig.model_validate(self.config), config
        except ValidationError as error:
            raise damaged(f"{self.folder.label}/{ABOUT}", f"config: {problem(error)}", ABOUT_REMEDY) from error
        with_pools = theirs.step.pool_size and ours.step.pool_size
        pairs = {
            "model": (theirs.model, ours.model),
            "init.freeze": (theirs.init.freeze, ours.init.freeze),
            "optimizer.name": (theirs.optimizer.name, ours.optimizer.name),
            "step.ema_half_life": (theirs.step.ema_half_life is None, ours.step.ema_half_life is None),
            # The images in the pools have it.
            "data.crop_size": tuple(with_pools and each.data.crop_size for each in (theirs, ours)),
            "step.precision": tuple(
                each.step.precision in ("fp16", "fp64") and each.step.precision for each in (theirs, ours)
            ),
        }
        different = [name for name, (there, here) in pairs.items() if there != here]
        if different:
            raise UserError(
                f"--fork-of {self}: its state does not fit another {', '.join(different)}; keep that as it was, or start from "
                f"its weights alone: --init.from {self.folder.label}@{self.images}"
            )

    def copy_into(self, folder: RunFolder, about: dict[str, Any]) -> None:
        """Make the folder of a fork: the checkpoint, the records up to it, and a run.json that says where it comes from.

        Args:
            about: of the fork.
        """
        folder.write_json(ABOUT, about | {ORIGIN: {"run": self.folder.label, "checkpoint": self.checkpoint}})
        records = [record for record in read_records(self.folder) if record[IMAGES] <= self.images]
        folder.write(METRICS, as_lines(records))
        try:
            CheckpointReader(self.folder.location.inside(self.checkpoint)).copy_to(folder, self.checkpoint)
        except UserError as error:
            if error.retryable:
                raise
            # Deleted meanwhile, or damaged.
            raise UserError(f"--fork-of {self}: {error}; choose another") from error
