"""The identity of a run as stored in run.json: configuration, dataset and versions; and whether a folder holds the same run."""

from dataclasses import asdict
from importlib.metadata import version
from shlex import quote
from typing import Any

from cluster.ranks.clock import Clock
from cluster.records.about import ABOUT_REMEDY, about_run
from cluster.records.fields import merge, without
from cluster.settings.config import DataConfig, RunConfig, differences
from cluster.settings.options import train_command
from data_shards import Dataset
from data_shards.errors import UserError
from data_shards.storage.checked import damaged, problem
from data_shards.storage.folder import RunFolder
from data_shards.version import code_digest
from nla_cyclegan.weights.stored_score import ABOUT

# How images reach the model, not which images: these fields may change when a run is continued.
DELIVERY = ("uri", "a", "b", "loader_workers", "prefetch", "cache_gb", "cache_folder", "bad_sample_budget")
# How a step is computed, up to rounding: these may change too. `compile` was removed; runs of version 0.1 have it.
EXECUTION = ("kernels", "graph", "channels_last", "cudnn_benchmark", "tf32", "deterministic", "micro_batch", "compile")
SURROUNDINGS = ("name", "storage", "scaling", "checkpoint", "observe", "validation")
VERSIONED = ("torch", "ray", "webdataset", "safetensors")


def about(config: RunConfig, dataset: Dataset) -> dict[str, Any]:
    """The content of run.json, as JSON values."""
    return {
        "config": config.model_dump(mode="json"),
        "command": train_command(config),
        "dataset": dataset.fingerprint,
        "clock": asdict(Clock.of(config.schedule, dataset, config.data.global_batch)),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of the packages that the results depend on, and of this code."""
    return {**{package: version(package) for package in VERSIONED}, "code": code_digest()}


def other_versions(there: dict[str, Any]) -> list[str]:
    """What differs from the versions in a run.json or sweep.json, of what that records: `torch: 2.13.0 there, 2.15.0 here`."""
    before, now = there.get("versions"), versions()
    return differences(before, {name: now.get(name) for name in before}) if isinstance(before, dict) else []


def check_same_run(folder: RunFolder, config: RunConfig, dataset: Dataset) -> None:
    """Raises: UserError when the folder is that of a run with another configuration or dataset."""
    there = about_run(folder)
    if not there:
        return
    here = about(config, dataset)
    try:
        lines = differences(decisive(there["config"]), decisive(here["config"]))
        same_images = there["dataset"] == here["dataset"]
    except (KeyError, TypeError, AttributeError) as error:
        raise damaged(f"{folder.label}/{ABOUT}", problem(error), ABOUT_REMEDY) from error
    if not same_images:
        lines.append(f"the dataset at {config.data.uri}: other images than before")
    if lines:
        raise UserError(
            f"{folder.label} holds another run; choose another --name (with --fork-of {quote(folder.label)} it continues from that run), "
            f"or take its configuration ({ABOUT} in that folder). What differs:\n"
            + "\n".join(f"  {line}" for line in lines)
        )


def decisive(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that the trained weights depend on; fields added since it was stored get their defaults."""
    full = merge(RunConfig(data=DataConfig(uri="-")).model_dump(mode="json"), config)
    return without(full, SURROUNDINGS) | {
        "data": without(full["data"], DELIVERY),
        "step": without(full["step"], EXECUTION),
    }
