"""The command line and the YAML file of a sweep. Options that are not the sweep's are those of its run."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, CliSettingsSource

from cluster.records.fields import flat, merge
from cluster.settings.config import RunConfig
from cluster.settings.options import (
    DATASETS,
    REMOVED,
    Parser,
    field_names,
    field_options,
    given_fields,
    nearest,
    option_text,
    parse_options,
    problem_line,
)
from cluster.settings.options import Options as RunOptions
from cluster.settings.workers.selector import OPTION as LABELS
from cluster.settings.yaml_file import flat_fields, read_yaml
from data_shards.errors import UserError
from tuning.analysis.objective import objective_problems
from tuning.search_space.checks import space_problems
from tuning.search_space.space import Dimension, Space, as_grid, default_space, validated
from tuning.settings.config import SweepConfig

# The keys of a dimension of the search space.
KINDS = set(Dimension.model_fields)
# `train` in a preset is relative to the folder that holds the packages.
PRESETS = Path(__file__).parents[1] / "configs"
USAGE = "python -m tuning sweep (--config FILE | --preset NAME) [--FIELD VALUE ...] [--section.field VALUE ...] [--dry-run] [--take-over] [--address ADDRESS]"
RUN_HELP = (
    "All options of the run are accepted too, and override its file `train`: --data.uri, --schedule.images, ..., "
    "--dry-run (print the plan and exit), --address (join that Ray cluster), --take-over (end another process that runs "
    "this sweep now): see python -m cluster train --help."
)


@dataclass(frozen=True)
class Options:
    """The checked arguments of `sweep`; the space is filled in and valid for the run."""

    config: SweepConfig
    base: RunConfig
    dry_run: bool
    address: str | None
    take_over: bool = False

    @property
    def space(self) -> Space:
        assert self.config.space is not None
        return self.config.space


class _Settings(SweepConfig, BaseSettings):  # type: ignore[misc]
    """Makes each field of the configuration an option."""


def parse_sweep(arguments: Sequence[str]) -> Options:
    """Read the arguments of `sweep`.

    Raises: UserError with one line for each thing that is wrong with the sweep, its run and its space.
    """
    parser, source = _parser()
    values, of_the_run = parser.parse_known_args(arguments)
    given = given_fields(source, values)
    file, content = _file(values)
    # Replaced as a whole: merging could give a dimension two kinds of candidates.
    whole = {name: given[name] for name in ("space", "override") if name in given}
    if isinstance(whole.get("override"), dict):
        whole["override"] = flat(whole["override"])
    merged = merge(content, given) | whole
    problems: list[str] = []
    try:
        config = SweepConfig.model_validate(merged)
    except ValidationError as error:
        problems += [_of_the_run(each["loc"][0], file) or problem_line(each, given, file) for each in error.errors()]
    try:
        run = _run_options(merged, of_the_run, "--train" if "train" in given else f"train in {file}:")
    except UserError as error:
        problems += str(error).splitlines()
    if problems:
        raise UserError("\n".join(problems))
    space = default_space(run.config.model.generator.num_blocks) if config.space is None else config.space
    space = as_grid(space) if config.search == "grid" else space
    problems = [
        *_search_problems(config, space),
        *space_problems(space, run.config),
        *_population_problems(config, space),
        *objective_problems(config.objective, run.config),
        *(["--local: a sweep needs workers"] if run.local else []),
    ]
    if problems:
        raise UserError("\n".join(problems))
    space = validated(space, run.config)
    return Options(config.model_copy(update={"space": space}), run.config, run.dry_run, run.address, run.take_over)


def as_options(override: Mapping[str, Any], given: Sequence[str]) -> list[str]:
    """The overrides as command-line options, without those that are given on the command line."""
    named = {option.partition("=")[0] for option in given}
    named |= {f"--data.{other}" for field, others in DATASETS.items() if f"--data.{field}" in named for other in others}
    return [f"--{field}={option_text(value)}" for field, value in override.items() if f"--{field}" not in named]


def _parser() -> tuple[argparse.ArgumentParser, CliSettingsSource[Any]]:
    parser = Parser(
        prog="python -m tuning sweep",
        usage=USAGE,
        description="Train variations of a run and rank them. The same command again continues the sweep.",
        epilog=RUN_HELP,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with any of the fields below; options override it")
    parser.add_argument(
        "--preset", metavar="NAME", help=f"a sweep of this project instead of a file: {', '.join(presets())}"
    )
    return parser, field_options(parser, _Settings)


def _run_options(merged: dict[str, Any], of_the_run: list[str], file_option: str) -> RunOptions:
    """The options of the base run: its file, overridden by the sweep's file, overridden by the command line."""
    train, override = merged.get("train"), merged.get("override")
    file = ["--config", train] if isinstance(train, str) else []
    override = override if isinstance(override, dict) else {}
    known = (*field_names(RunConfig), *REMOVED)
    # Each label is a separate field here.
    unknown = [field for field in override if field not in known and not f"--{field}".startswith(f"{LABELS}.")]
    if unknown:
        raise UserError(
            "\n".join(f"override.{name}: no such field of a run; {nearest(name.split('.'))}" for name in unknown)
        )
    return parse_options([*file, *as_options(override, of_the_run), *of_the_run], file_option)


def _of_the_run(name: Any, file: str | None) -> str | None:
    """The problem of a field in the sweep's file that is the run's; None for another one."""
    if name in SweepConfig.model_fields or name not in RunConfig.model_fields:
        return None
    return f"{name}: a field of the run{f' in {file}' if file else ''}; write it below override"


def presets() -> list[str]:
    return sorted(file.stem for file in PRESETS.glob("*.yaml"))


def _file(values: argparse.Namespace) -> tuple[str | None, dict[str, Any]]:
    """The sweep's file and its content. Raises: UserError for an unknown preset, or for a preset and a file together."""
    if values.preset is None:
        return values.config, _read(values.config)
    if values.config is not None:
        raise UserError("--preset: a file is given as well; give either --config or --preset")
    if values.preset not in presets():
        raise UserError(f"--preset {values.preset}: no such preset; allowed: {', '.join(presets())}")
    file = str(PRESETS / f"{values.preset}.yaml")
    content = _read(file)
    # Absolute, so that presets work in any working directory.
    return file, content | {"train": str(PRESETS.parents[1] / content["train"])}


def _read(file: str | None) -> dict[str, Any]:
    """The sweep's file; fields of the run, in `override` and `space`, may be nested in it too."""
    content = read_yaml(file, dotted=("override", "space"))
    for name, is_value in (("override", lambda value: False), ("space", lambda value: not KINDS.isdisjoint(value))):
        if isinstance(content.get(name), dict):
            content[name] = flat_fields(content[name], is_value, file, name)
    return content


def _search_problems(config: SweepConfig, space: Space) -> list[str]:
    if config.search == "grid":
        ranges = [field for field, dimension in space.items() if dimension.ends]
        return [
            f"space.{field}: a range has no grid; give a list of choices, or use --search random" for field in ranges
        ]
    if config.search == "optuna":
        grids = [field for field, dimension in space.items() if dimension.grid]
        return [f"space.{field}: optuna draws values instead of trying a whole grid; use choice" for field in grids]
    return []


def _population_problems(config: SweepConfig, space: Space) -> list[str]:
    if config.scheduler != "pbt":
        return []
    problems = [
        f"space.{field}: pbt changes values during training; allowed: numbers of the optimizer, weights of the losses"
        for field in space
        if field.partition(".")[0] not in ("optimizer", "loss") or field == "optimizer.name"
    ]
    if config.search == "optuna":
        problems.append("search: pbt starts its whole population at once; use --search random")
    if config.budget.images:
        problems.append(
            "budget.images: pbt trains its whole population to the end; lower --trials or --schedule.images"
        )
    return problems
