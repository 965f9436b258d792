"""Selects the machines that may hold workers by labels and accelerator, as Ray does."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.records.fields import flat
from cluster.settings.workers.capacity import Machine

# The resource by which Ray marks a machine's accelerator, how much of it a worker takes, and the label that says the same.
RESOURCE, RESOURCE_AMOUNT = "accelerator_type:", 0.001
ACCELERATOR_LABEL = "ray.io/accelerator-type"
# Different on every machine.
NODE_ID = "ray.io/node-id"
# ray.util.accelerators has them; others are possible, as Ray takes the name from the driver.
NVIDIA = (
    *("V100", "P100", "T4", "P4", "K80", "A10G", "L4", "L40S", "A100", "H100", "H200", "H20", "B200", "B300"),
    *("GB200", "GB300", "RTX-PRO-6000", "A100-40G", "A100-80G"),
)
# The syntax of labels is that of Kubernetes.
NAME = r"[a-zA-Z0-9](?:[a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?"
KEY = re.compile(rf"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?/)?{NAME}")
CONDITION = re.compile(rf"!?(?:{NAME}|in\({NAME}(?:, ?{NAME})*\))")
OPTION = "--scaling.labels"
SHOWN = 12


@dataclass(frozen=True)
class Selector:
    """Requirements on a machine.

    Attributes:
        accelerator: its type by Ray's name: "H100".
        labels: key -> value, "!value", "in(value,value)" or "!in(value,value)".
    """

    accelerator: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.accelerator or self.labels)

    def __str__(self) -> str:
        accelerator = [f"accelerator {self.accelerator}"] if self.accelerator else []
        return " and ".join([*accelerator, *map(_pair, self.labels.items())])

    def takes(self, machine: Machine) -> bool:
        has_accelerator = self.accelerator is None or self.accelerator in machine.accelerators
        return has_accelerator and all(_meets(machine.labels.get(key), value) for key, value in self.labels.items())

    def takes_node(self, node: Mapping[str, Any]) -> bool:
        """Whether it accepts a machine of `ray.nodes()`."""
        if not self:
            return True
        return self.takes(Machine(0, 0, 0, 0, node.get("Labels") or {}, accelerators_of(node["Resources"])))

    def among(self, machines: Iterable[Machine]) -> list[Machine]:
        return [machine for machine in machines if self.takes(machine)]

    def missing(self, machines: Sequence[Machine]) -> str:
        """A line that no machine matches, with the labels that the machines have."""
        labels = [_pair(item) for machine in machines for item in machine.labels.items() if item[0] != NODE_ID]
        accelerators = [f"accelerator {name}" for machine in machines for name in machine.accelerators]
        counts = Counter(labels + accelerators)
        shown = [f"{what} (on {count})" for what, count in counts.most_common(SHOWN)]
        more = [f"{len(counts) - SHOWN} more"] if len(counts) > SHOWN else []
        count = "its machine has" if len(machines) == 1 else f"its {len(machines)} machines have"
        return f"no machine of the cluster has {self}; {count} {', '.join([*shown, *more]) or 'no labels'}"


ANY = Selector()


def accelerators_of(resources: Mapping[str, float]) -> frozenset[str]:
    return frozenset(name.removeprefix(RESOURCE) for name in resources if name.startswith(RESOURCE))


def accelerator_named(gpu: str) -> str | None:
    """Ray's name for a GPU, from the driver's name: "NVIDIA H100 80GB HBM3" -> "H100"."""
    match = re.match(r"\w+\s+((?:[A-Z]+\s+)*[A-Z0-9]*\d[A-Z0-9]*)", gpu)
    name = match[1] if match and len(match[1]) > 1 else re.sub(r"^NVIDIA\s+", "", gpu).strip()
    return name.replace(" ", "-") or None


def parse_labels(value: Any) -> dict[str, str]:
    """{"a": "b"}, '{"a": "b"}', "a=b,c=in(d,e)" -> key -> value; None and "" -> {}. Raises: ValueError."""
    if isinstance(value, str):
        value = value.strip()
        value = _read_json(value) if value.startswith("{") else dict(_pairs(value))
    if not isinstance(value, Mapping | None):
        raise ValueError("expected labels as KEY=VALUE, or a mapping of them")
    # A key with a dot may have been read as a section.
    labels = {str(key): _text(value) for key, value in flat(value or {}).items()}
    for key, condition in labels.items():
        if not KEY.fullmatch(key):
            raise ValueError(f"{key} is not a label key: expected letters, digits and -_. with at most one /")
        if not CONDITION.fullmatch(condition):
            raise ValueError(f"{key}={condition}: expected VALUE, !VALUE, in(VALUE,VALUE) or !in(VALUE,VALUE)")
    return labels


def check_accelerator(name: str) -> str:
    """Raises: ValueError for a name that is not one of Ray's accelerator names."""
    for known in NVIDIA:
        if name != known and re.fullmatch(rf"(.*[ _-])?{known}", name, re.IGNORECASE):
            raise ValueError(f"known to Ray as {known}")
    if not re.fullmatch(NAME, name):
        raise ValueError("expected Ray's name of an accelerator, such as H100 or L4 (ray.util.accelerators)")
    return name


def take_labels(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """The arguments of a command without those that give labels; and those, each with the key in its name.

    pydantic-settings takes `--scaling.labels a=b` and JSON, but neither in(b,c) nor `--scaling.labels.a b`.
    """
    others: list[str] = []
    given: list[tuple[str, str]] = []
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name == OPTION or name.startswith(f"{OPTION}."):
            given.append((name[len(OPTION) + 1 :], value if equals else next(rest, "")))
        else:
            others.append(argument)
    return others, given


def labels_over(under: Any, given: Sequence[tuple[str, str]]) -> Any:
    """Labels with those of `take_labels` over them; `none` takes away all before it. What cannot be read is returned as it is."""
    for key, value in given:
        if not key and value in ("none", ""):
            under = {}
            continue
        try:
            under = {**parse_labels(under), **({key: value} if key else parse_labels(value))}
        except ValueError:
            return value
    return under


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """Of a=b,c=in(d,e)."""
    for part in re.split(r",(?![^(]*\))", text) if text else []:
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"{part}: expected labels as KEY=VALUE, with commas between")
        yield key.strip(), value.strip()


def _read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"expected labels as KEY=VALUE, or as JSON ({error})") from error


def _text(value: Any) -> str:
    """The value as text: YAML parses `true` and `7` as other types."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _pair(item: tuple[str, str]) -> str:
    return f"{item[0]}={item[1]}"


def _meets(value: str | None, condition: str) -> bool:
    wanted = condition.removeprefix("!")
    values = wanted[3:-1].split(",") if wanted.startswith("in(") else [wanted]
    return (value in [each.strip() for each in values]) != condition.startswith("!")
