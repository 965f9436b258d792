"""Numbers such as 1e6, which YAML 1.1 reads as text and an option is, for fields that are whole numbers."""

from contextlib import suppress
from typing import Any, get_args

from pydantic import BaseModel

from data_shards.command_line import whole_number


def with_whole_numbers(model: type[BaseModel], fields: Any) -> Any:
    """The fields given for a model, in which 1e6 is a whole number where the model has one; elsewhere, as in a name, it stays text."""
    if not isinstance(fields, dict):
        return fields
    found = dict(fields)
    for name, value in fields.items():
        kind = model.model_fields[name].annotation if name in model.model_fields else None
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found[name] = with_whole_numbers(kind, value)
        elif isinstance(value, str) and (kind is int or int in get_args(kind)):
            # What is none is refused by the field itself.
            with suppress(ValueError):
                found[name] = whole_number(value)
    return found
