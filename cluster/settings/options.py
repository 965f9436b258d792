"""Parses the command line and the YAML file of a run into a validated configuration."""

import argparse
import difflib
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, CliSettingsSource, SettingsError

from cluster.records.fields import flat, merge, without
from cluster.settings.config import RunConfig
from cluster.settings.workers.selector import OPTION as LABELS
from cluster.settings.workers.selector import labels_over, take_labels
from cluster.settings.yaml_file import read_yaml
from data_shards.command_line import filled
from data_shards.errors import UserError, shown_name

USAGE = "python -m cluster train --config FILE [--section.field VALUE ...] [--local] [--dry-run] [--take-over] [--fork-of RUN] [--address ADDRESS]"


@dataclass(frozen=True)
class Options:
    config: RunConfig
    local: bool
    dry_run: bool
    address: str | None
    take_over: bool = False
    fork_of: str | None = None


REMOVED = {
    "step.compile": "torch.compile is gone; step.kernels and step.graph are faster and on by default: remove this field"
}
# Kinds of problems, in the words of a YAML file instead of Python's.
EXPECTED = {
    "model_type": "expected fields below it, each as name: value",
    "tuple_type": "expected a list, such as [a, b]",
    "string_type": "expected text; a number, a date or yes is text in quotes",
}
TAKE_OVER = "--take-over"
FORK_OF = "--fork-of"
# Characters of a value in a message.
LONGEST_VALUE = 200
# A field that names the dataset -> the alternatives that it replaces if they come from a file, a sweep or another run.
DATASETS = {"uri": ("a", "b"), "a": ("uri",), "b": ("uri",)}
LIST_OPTIONS = (
    *("--model.generator.nonlocal_blocks", "--model.discriminator.nonlocal_blocks"),
    *("--loss.augment", "--init.freeze", "--observe.sinks"),
)
EMPTY = ("()", "", "none")


class _Settings(RunConfig, BaseSettings):  # type: ignore[misc]
    """Makes each field of the configuration an option."""


class Parser(argparse.ArgumentParser):
    """Raises a UserError for a wrong option."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def parse_options(arguments: Sequence[str], file_option: str = "--config") -> Options:
    """Read the arguments of `train`; options on the command line override the file.

    Args:
        file_option: what the user calls the option or field that names the file, for messages.

    Raises: UserError with one line for each problem in the file and on the command line.
    """
    parser, source = _parser()
    arguments, labels = take_labels(arguments)
    values, unknown = parser.parse_known_args(_with_empty_lists(arguments))
    given = given_fields(source, values)
    in_file = read_yaml(values.config, option=file_option)
    removed = [field for field in REMOVED if _take_out(in_file, field)]
    merged = override(in_file, given)
    if values.fork_of:
        merged = _with_inherited(merged, values.fork_of)
    if labels:
        merged = merge(merged, {"scaling": {}})
        merged["scaling"]["labels"] = labels_over(merged["scaling"].get("labels"), labels)
        given = merge(given, {"scaling": {"labels": {}}})
    problems = [_unknown_option(argument) for argument in unknown if argument.startswith("-")]
    if values.local and values.address:
        problems.append("--local, --address: training in this process joins no cluster; give one of them")
    problems += [f"{argument}: unexpected argument" for argument in unknown if not problems]
    problems += [f"{field}: {REMOVED[field]} from {values.config}" for field in removed]
    try:
        config = RunConfig.model_validate({"data": {}} | merged)
    except ValidationError as error:
        problems += [problem_line(details, given, values.config) for details in error.errors()]
    if problems:
        raise UserError("\n".join(problems))
    return Options(config, values.local, values.dry_run, values.address, values.take_over, values.fork_of)


def _with_inherited(fields: dict[str, Any], fork_of: str) -> dict[str, Any]:
    # Reads storage, which nothing else here does.
    from cluster.settings.fork import inherited

    if "name" not in fields:
        raise UserError(f"{FORK_OF} {fork_of}: give the fork a --name of its own")
    theirs = inherited(fork_of, fields)
    for field in REMOVED:
        _take_out(theirs, field)
    return override(theirs, fields)


def _with_empty_lists(arguments: Sequence[str]) -> list[str]:
    """The arguments with each empty list, such as `--model.generator.nonlocal_blocks none`, in the form that the parser reads."""
    found, before = [], ""
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if before in LIST_OPTIONS and argument in EMPTY:
            found.append("[]")
        else:
            found.append(f"{option}=[]" if equals and option in LIST_OPTIONS and value in EMPTY else argument)
        before = argument
    return found


def _parser() -> tuple[argparse.ArgumentParser, CliSettingsSource[Any]]:
    parser = Parser(
        prog="python -m cluster train",
        usage=USAGE,
        description="Train a run, or continue it: the same command resumes from the newest checkpoint.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with any of the fields below; options override it")
    parser.add_argument(
        "--local", action="store_true", help="train in this process, without workers: breakpoint() works"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and exit")
    parser.add_argument(
        TAKE_OVER, action="store_true", help="end the other process that is training this run, and continue it here"
    )
    parser.add_argument(
        FORK_OF, type=filled, metavar="RUN[@N]",
        help="start from a checkpoint of another run under a new --name; other options override that run's configuration",
    )  # fmt: skip
    parser.add_argument(
        "--address",
        type=filled,
        metavar="ADDRESS",
        help="join this Ray cluster (default: RAY_ADDRESS, else a Ray of its own)",
    )
    return parser, field_options(parser, _Settings)


def field_options(parser: argparse.ArgumentParser, settings: type[BaseSettings]) -> CliSettingsSource[Any]:
    """Add an option for each field of a configuration. Returns: the source that reads them from the parsed arguments."""
    return CliSettingsSource(
        settings,
        root_parser=parser,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        cli_use_class_docs_for_groups=True,
        cli_parse_none_str="none",
        formatter_class=argparse.HelpFormatter,
    )


def given_fields(source: CliSettingsSource[Any], values: argparse.Namespace) -> dict[str, Any]:
    """The fields that options give. Raises: UserError for lists that are neither words nor JSON, and for sections with a value that is no JSON."""
    names = field_names(source.settings_cls)
    for option, value in vars(values).items():
        inside = [name for name in names if name.startswith(f"{option}.")]
        if inside and value is not None and not value.startswith("{"):
            raise UserError(
                f"--{option} {shown_name(value)}: a section of fields; give one of them: --{', --'.join(inside)}"
            )
    try:
        return source(parsed_args=values)()
    except SettingsError as error:
        named = re.search(r"encountered for ([\w.]+)|for field \"([\w.]+)\"", str(error))
        option = next(filter(None, named.groups()), "") if named else ""
        reason = f" ({error.__cause__})" if error.__cause__ else ""
        raise UserError(
            f"--{option}: a value of it cannot be read{reason}; expected words with commas between, or JSON: 0,4 or [0, 4]"
        ) from error


def train_command(config: RunConfig, *flags: str) -> str:
    """A command line that trains the run without any configuration file."""
    # All fields of a fork: those that are omitted would be inherited from the other run.
    fields = as_options(config, defaults=FORK_OF in flags)
    return shlex.join(["python", "-m", "cluster", "train", *fields, *flags])


def as_options(config: RunConfig, *, defaults: bool = False) -> list[str]:
    """Options of `train` that are equivalent to a configuration.

    Args:
        defaults: also for fields that have their default value.
    """
    fields = flat(config.model_dump(mode="json", exclude_defaults=not defaults))
    if defaults and not config.scaling.labels:
        fields[LABELS.removeprefix("--")] = None
    return [f"--{name}={option_text(value)}" for name, value in fields.items()]


def option_text(value: Any) -> str:
    """A field's value in the form that its option accepts: 0.1, true, none, 1,2."""
    if isinstance(value, list):
        return ",".join(map(option_text, value)) or "[]"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def override(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`merge` of a run's fields; a dataset in `over` replaces that of `under`, however each is named."""
    named, below = over.get("data"), under.get("data")
    if isinstance(named, dict) and isinstance(below, dict):
        replaced = {name for field in named for name in DATASETS.get(field, ())} - named.keys()
        under = under | {"data": without(below, replaced)}
    return merge(under, over)


def _take_out(fields: dict[str, Any], dotted: str) -> bool:
    """Remove a field. Returns whether it had a value: configurations that a run stored name every field, also unset ones."""
    section, _, name = dotted.partition(".")
    return isinstance(fields.get(section), dict) and fields[section].pop(name, None) is not None


def problem_line(error: ErrorDetails, given: dict[str, Any], file: str | None) -> str:
    """One problem of a configuration: field, value received, what is allowed."""
    path = [str(part) for part in error["loc"]]
    field, message = shown_name(".".join(path)), EXPECTED.get(error["type"], error["msg"].removeprefix("Value error, "))
    if error["type"] == "extra_forbidden":
        return f"{field}: no such field{_from(path, given, file)}; {nearest(path)}"
    if error["type"] == "missing":
        instead = ", or two folders as --data.a and --data.b" if field == "data.uri" else ""
        return f"{field}: required; give it as --{field} or in the file{instead}"
    if isinstance(error["input"], dict) and error["type"].endswith("_type"):
        return f"{field}: {message}; got fields below it, {shown_name(', '.join(map(str, error['input'])))}"
    if not field or isinstance(error["input"], dict) or error["type"] == "credentials":
        # A check of several fields names them itself; credentials must not be repeated.
        return f"{field}: {message}" if field else message
    got = repr(error["input"])
    got = got if len(got) <= LONGEST_VALUE else f"{got[:LONGEST_VALUE]}..."
    return f"{field}: {message[0].lower()}{message[1:]}; got {got}{_from(path, given, file)}"


def _from(path: list[str], given: dict[str, Any], file: str | None) -> str:
    value: Any = given
    for name in path:
        if not isinstance(value, dict):
            # An element of a list.
            break
        if name not in value:
            return f" in {file}" if file else ""
        value = value[name]
    return " on the command line"


def _unknown_option(argument: str) -> str:
    option = argument.partition("=")[0]
    if removed := REMOVED.get(option.lstrip("-")):
        return f"{option}: {removed}"
    return f"{option}: no such option; {nearest(option.lstrip('-').split('.'), '--')}"


def nearest(path: list[str], dashes: str = "") -> str:
    """A suggestion for an unknown field: the most similar one, those of its name elsewhere or with a word of it, or the fields of its section."""
    fields, asked = field_names(RunConfig), ".".join(path).lower()
    names = {field: field.rpartition(".")[2] for field in fields}
    name = asked.rpartition(".")[2]
    of_its_name = [field for field in fields if names[field] == name]
    words = {word for word in name.split("_") if len(word) > 1}
    with_its_word = [field for field in fields if words.intersection(names[field].split("_"))]
    if near := difflib.get_close_matches(asked, fields, n=1, cutoff=0.8) or of_its_name or with_its_word[:4]:
        return f"did you mean {' or '.join(dashes + field for field in near)}?"
    section = ".".join(path[:-1])
    here = [field for field in fields if field.startswith(f"{section}.")] if section else []
    return f"allowed here: {', '.join(field.rpartition('.')[2] for field in here)}" if here else "see --help"


def field_names(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Dotted names of all fields, each section before its fields."""
    names = []
    for name, field in model.model_fields.items():
        names.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names += field_names(field.annotation, f"{prefix}{name}.")
    return names
