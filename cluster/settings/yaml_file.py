"""Reading the YAML file of a run or a sweep: no key twice, and dotted keys as the nested ones that they name."""

from pathlib import Path
from typing import Any

import yaml

from data_shards.errors import UserError


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, of which YAML's readers silently drop the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[Any, int] = {}
        for key, _ in node.value:
            # A merge key (<<) may be overridden.
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            name, line = self.construct_object(key, deep=True), key.start_mark.line + 1
            if isinstance(name, str) and name in lines:
                raise _TwiceError(name, lines[name], line)
            if isinstance(name, str):
                lines[name] = line
        return super().construct_mapping(node, deep)


class _TwiceError(Exception):
    def __init__(self, name: str, first: int, second: int) -> None:
        super().__init__(f"{name} stands twice, in lines {first} and {second}: make one of them")


def read_yaml(file: str | None, *, dotted: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields in a file, nested; empty for no file.

    Args:
        dotted: fields whose own keys are dotted names, such as a sweep's `space`.

    Raises: UserError where it cannot be read, is no YAML, or has a key twice.
    """
    if file is None:
        return {}
    try:
        content = yaml.load(Path(file).read_text(), _Loader)
    except OSError as error:
        raise UserError(f"--config {file}: cannot be read ({error.strerror})") from error
    except _TwiceError as error:
        raise UserError(f"--config {file}: {error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"--config {file}: not a YAML file ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict | None):
        raise UserError(f"--config {file}: expected fields (`name: value`), got {type(content).__name__}")
    try:
        return _nested(content or {}, dotted)
    except ValueError as error:
        raise UserError(f"--config {file}: {error}") from error


def _nested(fields: dict[Any, Any], dotted: tuple[str, ...], prefix: str = "") -> dict[Any, Any]:
    """With `a.b: 1` as `a: {b: 1}`. Raises: ValueError where both stand there."""
    nested: dict[Any, Any] = {}
    for key, value in fields.items():
        if isinstance(value, dict) and key not in dotted:
            value = _nested(value, dotted, f"{prefix}{key}.")
        section, dot, rest = key.partition(".") if isinstance(key, str) else (key, "", "")
        if dot:
            value = _nested({rest: value}, dotted, f"{prefix}{section}.")
        nested[section] = _joined(nested[section], value, f"{prefix}{section}") if section in nested else value
    return nested


def _joined(one: Any, other: Any, name: str) -> Any:
    if not (isinstance(one, dict) and isinstance(other, dict)):
        raise ValueError(f"{name} stands twice, once with a dot: make one of them")
    joined = dict(one)
    for key, value in other.items():
        joined[key] = _joined(joined[key], value, f"{name}.{key}") if key in joined else value
    return joined
