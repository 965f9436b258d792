"""Validates untrusted input from storage: names that become paths, and the shape of JSON."""

import json
import re
import unicodedata
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, TypeAdapter, ValidationError

from data_shards.errors import UserError

# Bytes of a part of a path, on all common file systems.
LONGEST_PART = 255
# Categories of Unicode: controls, half a character, what ends a line.
UNWRITABLE = ("Cc", "Cs", "Zl", "Zp")
# Nesting of JSON; this project's own files have less than ten levels.
DEEPEST = 100
# Digits; more than those of 64 bits. An integer that is larger than any float would raise an OverflowError later.
LONGEST_INTEGER = 20
REMEDY = "delete it, or restore it from a copy"
# What may precede text: a byte order mark, white space.
BLANK = b"\xef\xbb\xbf \t\r\n"
# First bytes, in small letters, of what downloads leave in the place of a file; what it is, and what to do.
IN_PLACE = (
    ((b"version https://git-lfs",), "a pointer of Git LFS: fetch the file itself with `git lfs pull`"),
    ((b"<!doctype html", b"<html", b"<?xml"), "a web page or XML: download the file again"),
)
T = TypeVar("T")


def leads_out(name: str) -> bool:
    """Whether a name, used as a path, may leave its folder or mean the folder itself: objects may be called `a/../../b`."""
    return any(part in ("", ".", "..") for part in name.split("/"))


def inside_name(name: str) -> str:
    """The name, if it names a file inside the folder that it is read from: `trainA-000000.tar`, `trainA/000.tar`.

    Raises: ValueError for anything else: an absolute path, a drive, `..`, an empty part, a control character, a backslash.
    """
    parts = name.split("/")
    plain = (
        not leads_out(name)
        and not any(unicodedata.category(letter) in UNWRITABLE for letter in name)
        and "\\" not in name
        and not re.match("[A-Za-z]:", name)
        and all(len(part.encode()) <= LONGEST_PART for part in parts)
    )
    if not plain:
        raise ValueError(f"{shortened(name)} is not the name of a file inside its folder")
    return name


InsideName = Annotated[str, AfterValidator(inside_name)]


def in_place_of(content: bytes) -> str:
    """What a file with this content, or this start, is in the place of the one that was written, and what to do; else empty."""
    text = content[:512].lstrip(BLANK).lower()
    return next((what for starts, what in IN_PLACE if text.startswith(starts)), "")


def damaged(source: str, why: object, remedy: str = REMEDY) -> UserError:
    """The error for a file whose content is not what was written; no remedy: the caller knows what happens next."""
    return UserError(f"{source}: damaged ({why})" + (f"; {remedy}" if remedy else ""))


def checked(shape: TypeAdapter[T], value: Any, source: str, remedy: str = REMEDY) -> T:
    """A JSON value that was read, as a type. Raises: UserError that names the source, the field and what was expected."""
    try:
        return shape.validate_python(value)
    except ValidationError as error:
        raise damaged(source, problem(error), remedy) from error


def parsed(content: bytes, source: str, remedy: str = REMEDY) -> Any:
    """The value of JSON text. Raises: UserError that names the source."""
    try:
        value = json.loads(content, parse_int=_integer)
        if b"\\u" in content:
            # Only such an escape can produce a lone surrogate.
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise damaged(source, in_place_of(content) or error, remedy) from error
    # Deeper values would overflow the stack of recursive functions.
    if content.count(b"[") + content.count(b"{") > DEEPEST and _depth(value) > DEEPEST:
        raise damaged(source, f"lists or fields in each other, more than {DEEPEST} deep", remedy)
    return value


def _integer(digits: str) -> int:
    if len(digits) > LONGEST_INTEGER:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _depth(value: Any) -> int:
    """How many lists and dicts lie in each other, counted up to a little more than DEEPEST."""
    depth, level = 0, [value]
    while level and depth <= DEEPEST:
        level = [each for each in level if isinstance(each, list | dict)]
        depth += bool(level)
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    return depth


def problem(error: Exception) -> str:
    """What is wrong with a value that was read, in one line; of several problems the first."""
    if not isinstance(error, ValidationError):
        # Python's own words for a TypeError or AttributeError say nothing about the file.
        return (
            f"it lacks {shortened(str(error.args[0]))}"
            if isinstance(error, KeyError)
            else "a field has another type than was written"
        )
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(shortened(str(part)) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def shortened(text: str) -> str:
    """Untrusted text for a message: in one line, cut after 80 characters."""
    shown = repr(text[:80])
    return f"{shown}..." if len(text) > 80 else shown if not text.isprintable() or not text else text
