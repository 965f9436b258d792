"""Reads the YAML file of a run or a sweep: rejects duplicate keys, and expands dotted keys to nested ones."""

import json
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from data_shards.errors import UserError, shown_name
from data_shards.storage.location import expanded
from data_shards.storage.uri import is_uri, shown

# The folder that holds the packages, and those with configurations.
INSTALLED, SHIPPED = Path(__file__).parents[2], (("cluster", "configs"), ("tuning", "configs"))
# A file of a few lines can repeat its anchors' values a billion times.
MOST_VALUES = 100_000
MERGE, TEXT = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:str"


class _Name(str):
    """A field's name with its line number in the file."""

    __slots__ = ("line",)
    line: int

    @classmethod
    def at(cls, name: str, line: int) -> "_Name":
        made = cls(name)
        made.line = line
        return made


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice in one mapping; YAML readers silently drop the first value."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Checked here, where each mapping is as written: later the fields of merge keys (<<) are among its own.
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.tag not in (TEXT, MERGE):
                name = key.value if isinstance(key.value, str) else "a list or a mapping"
                raise _FieldError(f"line {line}: {name} is not a field name; expected text")
            if key.value in lines:
                raise _twice(key.value, lines[key.value], line)
            lines[key.value] = line
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        lines = {key.value: key.start_mark.line + 1 for key, _ in node.value}
        return {_Name.at(str(name), lines[name]): value for name, value in mapping.items()}


# YAML 1.1 also takes 017 for 15 and 1:30 for 90.
INTEGER = re.compile("[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$")
_Loader.yaml_implicit_resolvers = {
    start: [(tag, INTEGER if tag.endswith(":int") else pattern) for tag, pattern in each]
    for start, each in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _FieldError(Exception):
    """What is wrong with a field's name."""


def _twice(name: str, first: int, second: int, how: str = "") -> _FieldError:
    return _FieldError(f"{name} is given twice, {how}in lines {first} and {second}; keep one")


def read_yaml(file: str | None, *, dotted: tuple[str, ...] = (), option: str = "--config") -> dict[str, Any]:
    """The fields in a file, nested; empty if `file` is None.

    Configurations of this project, such as cluster/configs/paper.yaml, are found from any working directory.

    Args:
        dotted: fields whose own keys are dotted names, such as a sweep's `space`; see `flat_fields`.
        option: the command-line option that names the file, for messages.

    Raises: UserError if it cannot be read, is not YAML, or gives a key twice.
    """
    if file is None:
        return {}
    if is_uri(file):
        raise UserError(f"{option} {shown_name(shown(file))}: expected a file of this machine, not a URI")
    path = Path(expanded(file))
    try:
        if path.parts[:-1] in SHIPPED and not path.exists():
            path = INSTALLED / path
        content = yaml.load(_without_tabs(path.read_bytes()), _Loader)
        if _size(content, {}) > MOST_VALUES:
            raise _FieldError(f"more than {MOST_VALUES:,} values, as its aliases repeat them")
        if not isinstance(content, dict | None):
            raise _FieldError(f"expected fields (`name: value`), got {type(content).__name__}")
        return _plain(_nested(content or {}, dotted), dotted)
    except OSError as error:
        raise UserError(f"{option} {shown_name(file)}: cannot be read ({error.strerror}){_meant(path)}") from error
    except _FieldError as error:
        raise UserError(f"{option} {shown_name(file)}: {shown_name(str(error))}") from error
    except RecursionError as error:
        raise UserError(f"{option} {shown_name(file)}: a field contains itself, or is nested too deeply") from error
    except yaml.reader.ReaderError as error:
        raise UserError(
            f"{option} {shown_name(file)}: not a YAML file, which is text in UTF-8 ({' '.join(str(error).split())})"
        ) from error
    # ValueError: YAML takes 2024-99-99 for a date.
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{option} {shown_name(file)}: not a YAML file ({' '.join(str(error).split())})") from error


def _meant(path: Path) -> str:
    """The configurations of this project that may be meant by a file that is not there."""
    shipped = [Path(*folder, each.name) for folder in SHIPPED for each in INSTALLED.joinpath(*folder).glob("*.yaml")]
    near = [] if path.exists() else get_close_matches(path.stem, {each.stem for each in shipped}, 1)
    meant = " or ".join(each.as_posix() for each in shipped if each.stem in near)
    return f"; did you mean {meant}?" if meant else ""


def _without_tabs(content: bytes) -> bytes:
    """JSON may be indented by tabs, which YAML refuses there; in its texts there are none."""
    try:
        is_json = b"\t" in content and isinstance(json.loads(content), dict)
    except (ValueError, RecursionError):
        return content
    return content.replace(b"\t", b" ") if is_json else content


def _size(value: Any, known: dict[int, int]) -> int:
    """How many values there are in a value, those of aliases as often as they are repeated."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = 1 + sum(
            _size(each, known) for each in (value.values() if isinstance(value, dict) else value)
        )
    return known[id(value)]


def flat_fields(
    fields: Mapping[str, Any], is_value: Callable[[Mapping[str, Any]], bool], file: str | None, prefix: str
) -> dict[str, Any]:
    """Flattens a section that `read_yaml` left dotted: nested fields get dotted names, down to what `is_value` accepts as a value.

    Raises: UserError if a field is given twice.
    """
    flat: dict[_Name, Any] = {}

    def add(fields: Mapping[Any, Any], above: str) -> None:
        for key, value in fields.items():
            name = _Name.at(f"{above}{key}", key.line)
            if isinstance(value, Mapping) and not is_value(value):
                add(value, f"{name}.")
            elif name in flat:
                reason = _twice(f"{prefix}.{name}", _line(flat, name), name.line, "once with a dot, ")
                raise UserError(f"--config {shown_name(file or '')}: {reason}")
            else:
                flat[name] = value

    add(fields, "")
    return _plain(flat)


def _nested(fields: Mapping[_Name, Any], dotted: tuple[str, ...], prefix: str = "") -> dict[_Name, Any]:
    """Expands `a.b: 1` to `a: {b: 1}`. Raises: _FieldError if both are given."""
    nested: dict[_Name, Any] = {}
    for key, value in fields.items():
        if "" in key.split("."):
            raise _FieldError(f"line {key.line}: {prefix}{key} is not a field name; a dot needs a name on each side")
        if isinstance(value, dict) and key not in dotted:
            value = _nested(value, dotted, f"{prefix}{key}.")
        section, dot, rest = key.partition(".")
        if dot:
            value = _nested({_Name.at(rest, key.line): value}, dotted, f"{prefix}{section}.")
        _join(nested, _Name.at(section, key.line), value, prefix)
    return nested


def _join(fields: dict[_Name, Any], name: _Name, value: Any, prefix: str) -> None:
    """Add a field; a section is merged into one of the same name."""
    there = fields.setdefault(name, value)
    if there is value:
        return
    if not (isinstance(there, dict) and isinstance(value, dict)):
        raise _twice(f"{prefix}{name}", _line(fields, name), name.line, "once with a dot, ")
    for key, inner in value.items():
        _join(there, key, inner, f"{prefix}{name}.")


def _line(fields: Mapping[_Name, Any], name: str) -> int:
    return next(key.line for key in fields if key == name)


def _plain(value: Any, dotted: tuple[str, ...] = ()) -> Any:
    """Replaces `_Name` keys by plain strings, except in dotted sections."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {str(name): each if name in dotted else _plain(each) for name, each in value.items()}
