"""The configuration of a sweep, and its command line: what is not an option of the sweep is one of its runs."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, CliSettingsSource

from cluster.config import Place, RunConfig
from cluster.errors import RunError
from cluster.options import Options as RunOptions
from cluster.options import merge, parse_options, problem_line, read_yaml
from tuning.space import Space, as_grid, default_space, misfits

USAGE = "python -m tuning sweep --config FILE [--FIELD VALUE ...] [--section.field VALUE ...] [--dry-run] [--address ADDRESS]"
RUN_HELP = (
    "Every other option is one of the run that the trials vary, over the file `train`: --data.uri, --schedule.images, "
    "..., --dry-run (print the plan and exit), --address (join that Ray cluster): see python -m cluster train --help."
)


class AshaConfig(BaseModel):
    """Asynchronous successive halving (Li et al. 2020): trials behind the others of their age are stopped."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    grace: int | None = Field(None, ge=1)
    """Images seen before a trial can be stopped, the first rung; none: the run's length divided by `reduction` twice."""
    reduction: float = Field(3, gt=1)
    """At each rung one trial in so many goes on, and the next rung is so many times further."""


class SweepConfig(BaseModel):
    """A sweep: the run that its trials vary, what they vary, and how they are chosen."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str = Field("sweep", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the sweep: its folder in `storage`. The same name again goes on with the sweep."""
    storage: Place = "sweeps"
    """Where sweeps are kept: a folder, or a URI such as s3://bucket/sweeps."""
    train: str
    """The run that the trials vary: a configuration file of `python -m cluster train`."""
    override: dict[str, str | int | float | bool | list[Any] | None] = {}
    """Fields of that run, dotted, that get another value in all trials: {schedule.images: 600}."""
    space: Space | None = None
    """Fields, dotted, and their candidates: {optimizer.lr: {loguniform: [1.0e-5, 1.0e-3]}}, or uniform, choice, grid;
    none: learning rate, beta1 and momentum_decay of Nadam, and the places of non-local blocks."""
    search: Literal["random", "grid"] = "random"
    """random: ranges and choices are drawn; grid: every combination of the choices is tried."""
    trials: int = Field(10, ge=1)
    """Draws of a random search, each with every combination of the dimensions given as grid; may grow later."""
    scheduler: Literal["none", "asha"] = "none"
    """none: all trials train to their end; asha: those behind are stopped."""
    asha: AshaConfig = AshaConfig()
    concurrent: int | None = Field(None, ge=1)
    """Trials at a time; none: as many as the cluster has room for."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Start of the draws; the runs' own is in their configuration."""


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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RunError(message)


def parse_sweep(arguments: Sequence[str]) -> Options:
    """Read the arguments of `sweep`.

    Raises: RunError with one line for each thing that is wrong with the sweep, its run and its space.
    """
    parser, source = _parser()
    values, of_the_run = parser.parse_known_args(arguments)
    given = source(parsed_args=values)()
    # Not field by field: a dimension has one way to give its candidates.
    whole = {name: given[name] for name in ("space", "override") if name in given}
    merged = merge(read_yaml(values.config), given) | whole
    problems: list[str] = []
    with _noted(problems):
        config = _validated(merged, given, values.config)
    with _noted(problems):
        run = _run_options(merged, of_the_run)
    if problems:
        raise RunError("\n".join(problems))
    space = default_space(run.config.model.generator.num_blocks) if config.space is None else config.space
    space = as_grid(space) if config.search == "grid" else space
    problems = [*_ranges_in_a_grid(config, space), *misfits(space, run.config), *_unfit_for_a_sweep(run)]
    if problems:
        raise RunError("\n".join(problems))
    return Options(config.model_copy(update={"space": space}), run.config, run.dry_run, run.address)


def as_options(override: Mapping[str, Any], given: Sequence[str]) -> list[str]:
    """Options that say the same, without those that are given anyway."""
    named = {option.partition("=")[0] for option in given}
    return [f"--{field}={_text(value)}" for field, value in override.items() if f"--{field}" not in named]


def _parser() -> tuple[argparse.ArgumentParser, CliSettingsSource[Any]]:
    parser = _Parser(
        prog="python -m tuning sweep",
        usage=USAGE,
        description="Train variations of a run and rank them: the same command again goes on with the sweep.",
        epilog=RUN_HELP,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with any of the fields below; options win over it")
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
    except RunError as error:
        problems += str(error).splitlines()


def _validated(merged: dict[str, Any], given: dict[str, Any], file: str | None) -> SweepConfig:
    try:
        return SweepConfig.model_validate(merged)
    except ValidationError as error:
        raise RunError("\n".join(problem_line(each, given, file) for each in error.errors())) from error


def _run_options(merged: dict[str, Any], of_the_run: list[str]) -> RunOptions:
    """The run's file, the sweep's overrides of it, the command line's."""
    train, override = merged.get("train"), merged.get("override")
    file = ["--config", train] if isinstance(train, str) else []
    return parse_options([*file, *as_options(override if isinstance(override, dict) else {}, of_the_run), *of_the_run])


def _ranges_in_a_grid(config: SweepConfig, space: Space) -> list[str]:
    if config.search != "grid":
        return []
    return [
        f"space.{field}: a range has no grid; give a list of choices, or use --search random"
        for field, dimension in space.items()
        if not dimension.grid
    ]


def _unfit_for_a_sweep(run: RunOptions) -> list[str]:
    problems = ["--local: a sweep runs on workers only"] if run.local else []
    if run.config.validation.every is None:
        problems.append("validation.every: trials are ranked by it; give the images between two evaluations")
    return problems


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)
