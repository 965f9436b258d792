"""The command line and the file of a sweep: what is not an option of the sweep is one of its runs."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, CliSettingsSource

from cluster.settings.config import RunConfig
from cluster.settings.options import Options as RunOptions
from cluster.settings.options import Parser, merge, parse_options, problem_line, read_yaml
from data_shards.errors import UserError
from tuning.analysis.objective import misfits as objective_misfits
from tuning.search_space.misfits import misfits
from tuning.search_space.space import Space, as_grid, default_space, without_names
from tuning.settings.config import SweepConfig

# Sweeps by name. They name their run's file from the folder that holds the packages.
PRESETS = Path(__file__).parents[1] / "configs"
USAGE = "python -m tuning sweep (--config FILE | --preset NAME) [--FIELD VALUE ...] [--section.field VALUE ...] [--dry-run] [--address ADDRESS]"
RUN_HELP = (
    "Every other option is one of the run that the trials vary, over the file `train`: --data.uri, --schedule.images, "
    "..., --dry-run (print the plan and exit), --address (join that Ray cluster): see python -m cluster train --help."
)


@dataclass(frozen=True)
class Options:
    """What `sweep` was asked to do; the space is filled in, and fits the run."""

    config: SweepConfig
    base: RunConfig
    dry_run: bool
    address: str | None

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
    given = source(parsed_args=values)()
    file, content = _file(values)
    # Not field by field: a dimension has one way to give its candidates.
    whole = {name: given[name] for name in ("space", "override") if name in given}
    merged = merge(content, given) | whole
    problems: list[str] = []
    with _noted(problems):
        config = _validated(merged, given, file)
    with _noted(problems):
        run = _run_options(merged, of_the_run)
    if problems:
        raise UserError("\n".join(problems))
    space = default_space(run.config.model.generator.num_blocks) if config.space is None else config.space
    space = as_grid(space) if config.search == "grid" else space
    problems = [
        *_unfit_for_the_search(config, space),
        *misfits(space, run.config),
        *_unfit_for_a_population(config, space),
        *objective_misfits(config.objective, run.config),
        *(["--local: a sweep runs on workers only"] if run.local else []),
    ]
    if problems:
        raise UserError("\n".join(problems))
    space = without_names(space, run.config.model.generator.num_blocks)
    return Options(config.model_copy(update={"space": space}), run.config, run.dry_run, run.address)


def as_options(override: Mapping[str, Any], given: Sequence[str]) -> list[str]:
    """Options that say the same, without those that are given anyway."""
    named = {option.partition("=")[0] for option in given}
    return [f"--{field}={_text(value)}" for field, value in override.items() if f"--{field}" not in named]


def _parser() -> tuple[argparse.ArgumentParser, CliSettingsSource[Any]]:
    parser = Parser(
        prog="python -m tuning sweep",
        usage=USAGE,
        description="Train variations of a run and rank them: the same command again goes on with the sweep.",
        epilog=RUN_HELP,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with any of the fields below; options win over it")
    parser.add_argument("--preset", metavar="NAME", help=f"one of this project's own instead: {', '.join(presets())}")
    source: CliSettingsSource[Any] = CliSettingsSource(
        _Settings,
        root_parser=parser,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_parse_none_str="none",
        formatter_class=argparse.HelpFormatter,
    )
    return parser, source


@contextmanager
def _noted(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        problems += str(error).splitlines()


def _validated(merged: dict[str, Any], given: dict[str, Any], file: str | None) -> SweepConfig:
    try:
        return SweepConfig.model_validate(merged)
    except ValidationError as error:
        raise UserError("\n".join(problem_line(each, given, file) for each in error.errors())) from error


def _run_options(merged: dict[str, Any], of_the_run: list[str]) -> RunOptions:
    """The run's file, the sweep's overrides of it, the command line's."""
    train, override = merged.get("train"), merged.get("override")
    file = ["--config", train] if isinstance(train, str) else []
    return parse_options([*file, *as_options(override if isinstance(override, dict) else {}, of_the_run), *of_the_run])


def presets() -> list[str]:
    return sorted(file.stem for file in PRESETS.glob("*.yaml"))


def _file(values: argparse.Namespace) -> tuple[str | None, dict[str, Any]]:
    """The sweep's file and what is in it. Raises: UserError for a preset that does not exist, or beside a file."""
    if values.preset is None:
        return values.config, read_yaml(values.config)
    if values.config is not None:
        raise UserError("--preset: a file is given as well; give either --config or --preset")
    if values.preset not in presets():
        raise UserError(f"--preset {values.preset}: no such preset; allowed: {', '.join(presets())}")
    file = str(PRESETS / f"{values.preset}.yaml")
    content = read_yaml(file)
    # Found from any folder.
    return file, content | {"train": str(PRESETS.parents[1] / content["train"])}


def _unfit_for_the_search(config: SweepConfig, space: Space) -> list[str]:
    if config.search == "grid":
        ranges = [field for field, dimension in space.items() if dimension.ends]
        return [
            f"space.{field}: a range has no grid; give a list of choices, or use --search random" for field in ranges
        ]
    if config.search == "optuna":
        grids = [field for field, dimension in space.items() if dimension.grid]
        return [f"space.{field}: a grid is tried as a whole, and optuna draws; give it as choice" for field in grids]
    return []


def _unfit_for_a_population(config: SweepConfig, space: Space) -> list[str]:
    if config.scheduler != "pbt":
        return []
    problems = [
        f"space.{field}: pbt changes values while a trial trains; allowed: numbers of the optimizer, weights of the losses"
        for field in space
        if field.partition(".")[0] not in ("optimizer", "loss") or field == "optimizer.name"
    ]
    if config.search == "optuna":
        problems.append("search: pbt changes a population that is there from the start; use --search random")
    if config.budget.images:
        problems.append("budget.images: pbt trains its population to the end; lower --trials or --schedule.images")
    return problems


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)
