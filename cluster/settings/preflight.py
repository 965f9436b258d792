"""Checks before a run starts: a launch on a cluster takes minutes, an error here none."""

import os
import socket
from dataclasses import dataclass
from math import lcm
from pathlib import Path
from typing import NamedTuple

from cluster.evaluation.config import FEWEST_FOR_KID, SMALLEST
from cluster.ownership.attempt import UNOWNED, Attempt
from cluster.ranks.clock import Clock
from cluster.records.about import about_run, read_about
from cluster.records.run_state import record_start
from cluster.records.trackers.names import problems as tracker_problems
from cluster.settings.config import RunConfig
from cluster.settings.fork import ORIGIN, Origin
from cluster.settings.identity import about, check_same_run, other_versions
from data_shards import Dataset, open_dataset
from data_shards.dataset.manifest import MANIFEST
from data_shards.errors import UserError, counted, shown_name
from data_shards.storage.folder import RunFolder
from data_shards.storage.location import expanded
from data_shards.storage.uri import is_uri
from nla_cyclegan.model.config import fitting_side
from nla_cyclegan.weights.checkpoint import complete_checkpoints
from nla_cyclegan.weights.checkpoint_names import NAME, images_of
from nla_cyclegan.weights.references import folder_of
from nla_cyclegan.weights.stored_score import ABOUT, SWEEP

# Set by torchrun, or by anything else that starts the ranks of a group without Ray.
GROUP_VARIABLES = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
SET_BY = "which torchrun or the job's script has set; to train in one process, unset them"
FOREIGN = {SWEEP: "a sweep", MANIFEST: "a dataset"}


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to start: absolute paths, an open dataset and a folder that belongs to it."""

    config: RunConfig
    dataset: Dataset
    clock: Clock
    folder: RunFolder
    checkpoints: list[str]
    """Complete checkpoints, newest first."""
    origin: Origin | None = None
    """Of a fork that has no checkpoint yet."""

    @property
    def images_seen(self) -> int:
        if self.origin:
            return self.origin.images
        return images_of(self.checkpoints[0]) if self.checkpoints else 0

    @property
    def finished(self) -> bool:
        return self.clock.ended(self.images_seen)


def prepare(config: RunConfig, fork_of: str | None = None) -> Prepared:
    """Open and check what the run needs; writes nothing.

    Args:
        fork_of: RUN or RUN@N whose checkpoint the run goes on from while it has none itself.

    Raises: UserError with a line for each problem, or when the dataset cannot be opened.
    """
    check_paths(config)
    config = absolute(config)
    dataset = open_dataset(config.data.uri)
    problems = [*tracker_problems(config.observe.sinks), *misfits(config, dataset)]
    if problems:
        raise UserError("\n".join(problems))
    folder = RunFolder(config.storage, config.name)
    _check_links(folder)
    if fork_of:
        Origin.check_name(fork_of, folder)
    checkpoints = complete_checkpoints(folder)
    if checkpoints:
        check_same_run(folder, config, dataset)
    clock = Clock.of(config.schedule, dataset, config.data.global_batch)
    origin = None if checkpoints else _origin(fork_of, folder, config, clock)
    if config.init.source and not checkpoints and not origin:
        try:
            folder_of(config.init.source)
        except UserError as error:
            raise UserError(f"init.from: {error}") from error
    return Prepared(config, dataset, clock, folder, checkpoints, origin)


def _origin(fork_of: str | None, folder: RunFolder, config: RunConfig, clock: Clock) -> Origin | None:
    """The checkpoint that a fork without checkpoints of its own starts from; None if the run is not a fork."""
    if not fork_of:
        if begun := read_about(folder, ABOUT).get(ORIGIN):
            raise UserError(
                f"{folder.label}: a fork of {begun.get('run', 'another run')} that has not started; give --fork-of again, or another --name"
            )
        return None
    origin = Origin.of(fork_of)
    origin.check(config)
    if clock.ended(origin.images):
        raise UserError(
            f"--fork-of {origin}: {counted(origin.images, 'image')} seen, and the schedule ends at {clock.total:,}: give a longer one, "
            "--schedule.epochs or --schedule.images"
        )
    return origin


def check_folder(folder: RunFolder) -> None:
    """Raises: UserError where a run would be mixed with a sweep or a dataset that is in its folder."""
    names = folder.names()
    for file, what in FOREIGN.items():
        if file in names:
            raise UserError(f"{folder.label} holds {what} ({file}), not a run; choose another --name or --storage")


def _check_links(folder: RunFolder) -> None:
    """Raises: UserError where a run would write outside its folder. Of checkpoints that are links, whole ones are only read."""
    if links := [name for name in folder.links_out() if not NAME.fullmatch(name)]:
        raise UserError(
            f"{folder.label}/{shown_name(links[0])}: a link that leads out of the run's folder, and a run writes nothing outside; "
            "delete the link, or choose another --name"
        )


def warnings(prepared: Prepared) -> list[str]:
    """Warnings about settings that are valid but probably unintended, one line each."""
    config, clock = prepared.config, prepared.clock
    return [*_enlarged(config, prepared.dataset), *_seldom_best(config, clock), *_upgraded(prepared)]


def _upgraded(prepared: Prepared) -> list[str]:
    changed = other_versions(about_run(prepared.folder)) if prepared.checkpoints else []
    what = "the run began with other versions, and may take another course from here on"
    return [f"{what} ({'; '.join(changed)})"] if changed else []


def _enlarged(config: RunConfig, dataset: Dataset) -> list[str]:
    smallest = {split: dataset.require(split) for split in ("trainA", "trainB")}
    return [
        f"{split} has images of {info.min_width} px width or {info.min_height} px height, which are enlarged to data.load_size "
        f"{config.data.load_size} px; `pack --min-size` leaves small ones out"
        for split, info in smallest.items()
        if min(info.min_width, info.min_height) < config.data.crop_size
    ]


def _seldom_best(config: RunConfig, clock: Clock) -> list[str]:
    evaluations, saves = config.validation.every, config.checkpoint.every
    if evaluations is None or not config.checkpoint.keep_best:
        return []
    evaluated, saved = clock.steps_due(evaluations), clock.steps_due(saves)
    both = evaluated & saved
    # If each save is evaluated, or each evaluation is saved, one of them is rare on purpose.
    if 2 * len(both) > min(len(evaluated), len(saved)):
        return []
    multiples = f" (after multiples of {counted(lcm(evaluations, saves), 'image')}, and at the end)"
    whole_steps = evaluations % clock.batch == 0 == saves % clock.batch
    return [
        f"validation.every {evaluations:,} and checkpoint.every {saves:,} seldom meet: {len(evaluated):,} evaluations and "
        f"{len(saved):,} checkpoints, {len(both):,} of them at the same step{multiples if whole_steps else ''}; only those can be "
        "kept as the best: make one a multiple of the other"
    ]


def claim(prepared: Prepared, attempt: Attempt = UNOWNED) -> None:
    """Write run.json and state.json: the folder holds this run from now on.

    Raises: UserError when another attempt has trained another run there meanwhile; LostRunError.
    """
    attempt.check()
    has_checkpoints = bool(complete_checkpoints(prepared.folder))
    if has_checkpoints:
        check_same_run(prepared.folder, prepared.config, prepared.dataset)
    if not (has_checkpoints and read_about(prepared.folder, ABOUT)):
        prepared.folder.write_json(ABOUT, about(prepared.config, prepared.dataset))
    record_start(prepared.folder)


def cluster_address(given: str | None) -> str | None:
    """The cluster to join, by an option or RAY_ADDRESS; None: a Ray of this process's own, which Ray itself calls "local"."""
    address = given or os.environ.get("RAY_ADDRESS")
    return None if address in ("", "local") else address


def in_ray_job() -> bool:
    """Whether this process was started by `ray job submit`: its folder is a temporary copy."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


class Launched(NamedTuple):
    """Which rank this process is, of all and of this machine's, where torchrun or anything else but Ray has started them."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1


def launched() -> Launched:
    """One rank alone without GROUP_VARIABLES. Raises: UserError where they name no rank of a group."""
    if not os.environ.keys() >= GROUP_VARIABLES:
        return Launched()
    defaults = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    given = {name: os.environ.get(name, default) for name, default in defaults.items()}
    if all(text.isdecimal() for text in given.values()):
        found = Launched(*map(int, given.values()))
        if found.rank < found.world and found.local_world:
            return found
    shown = ", ".join(f"{name}={shown_name(text)}" for name, text in given.items())
    raise UserError(f"not a rank of a group: {shown} (RANK is 0 to WORLD_SIZE - 1), {SET_BY}")


def is_first_rank() -> bool:
    """Whether this process speaks for the run: alone, or as rank 0 of torchrun's."""
    return launched().rank == 0


def check_paths(config: RunConfig) -> None:
    """Raises: UserError in a Ray job with a line for each path that is relative."""
    problems = relative_paths(config) if in_ray_job() else []
    if problems:
        raise UserError("\n".join(problems))


def check_shared(config: RunConfig) -> None:
    """Raises: UserError on a machine that lacks a folder which the driver's has."""
    for field, path in (("data.uri", config.data.uri), ("storage", config.storage)):
        if path and not is_uri(path) and not Path(path).exists():
            raise UserError(
                f"{field}: {path} is not on {socket.gethostname()}, where a worker of this run is; give a folder that all machines "
                f"share under this path, or a URI (--{field} s3://...)"
            )


def relative_paths(config: RunConfig, fork_of: str | None = None) -> list[str]:
    paths = {
        "fork-of": fork_of,
        "storage": config.storage,
        "data.a": config.data.a,
        "data.b": config.data.b,
        "data.uri": config.data.uri,
        "validation.inception": config.validation.inception,
        "init.from": config.init.source,
    }
    return [
        f"{field}: {path!r} is relative, and the working directory of a Ray job is a temporary copy; "
        f"give an absolute path or a URI that all machines reach (--{field} s3://...)"
        for field, path in paths.items()
        if path and not is_uri(path) and not os.path.isabs(expanded(path))
    ]


def absolute(config: RunConfig) -> RunConfig:
    """The configuration with absolute paths, which are valid in other processes too."""
    places = {name: _absolute(place) for name in ("a", "b", "uri") if (place := getattr(config.data, name))}
    data = config.data.model_copy(update=places)
    weights = config.validation.inception
    validation = config.validation.model_copy(update={"inception": weights and _absolute(weights)})
    init = config.init.model_copy(update={"from": config.init.source and _absolute(config.init.source)})
    absolute = {"storage": _absolute(config.storage), "data": data, "validation": validation, "init": init}
    return config.model_copy(update=absolute)


def misfits(config: RunConfig, dataset: Dataset) -> list[str]:
    """How the dataset does not fit the configuration, one line for each problem."""
    problems = []
    for split in ("trainA", "trainB"):
        info = dataset.require(split)
        if info.samples < config.data.global_batch:
            problems.append(
                f"data.global_batch: {config.data.global_batch}, but {split} has only {counted(info.samples, 'image')}; lower it"
            )
    if config.validation.every:
        lacking = [split for split in ("testA", "testB") if split not in dataset.splits]
        problems += [f"validation.every: the dataset has no {split}; pack one, or use none" for split in lacking]
        if fitting_side(config.data.load_size) < SMALLEST:
            problems.append(
                f"validation.every: data.load_size is {config.data.load_size} px, and distances are those of images from "
                f"{SMALLEST} px on; raise it, or use none"
            )
        problems += _misfits_of_kid(config, dataset) if config.validation.inception and not lacking else []
    return problems


def _misfits_of_kid(config: RunConfig, dataset: Dataset) -> list[str]:
    file, images = config.validation.inception, config.validation.images
    problems = []
    if file and not Path(expanded(file)).is_file():
        problems.append(f"validation.inception: {file}: no such file")
    fewest = min(images, *(dataset.splits[split].samples for split in ("testA", "testB")))
    if fewest < FEWEST_FOR_KID:
        problems.append(
            f"validation.inception: the kernel distance needs {FEWEST_FOR_KID} held-out images of each domain, got {fewest}; "
            "raise --validation.images, or pack more"
        )
    return problems


def _absolute(path: str) -> str:
    return path if is_uri(path) else str(Path(expanded(path)).absolute())
