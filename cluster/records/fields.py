"""Nested settings as mappings: flat under dotted names, merged, without some."""

from collections.abc import Collection, Mapping
from typing import Any


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, under dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merge two nested mappings field by field; `over` takes precedence."""
    merged = dict(under)
    for name, value in over.items():
        below = merged.get(name)
        merged[name] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def without(fields: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """The fields but for those of these names."""
    return {name: value for name, value in fields.items() if name not in names}
