"""Errors cross processes (loader processes, Ray): each arrives as it was raised."""

import inspect
import pickle

import pytest

from data_shards import errors
from data_shards.images.decode.open import UnreadableImageError

CLASSES = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, Exception)]


@pytest.mark.parametrize("kind", [*CLASSES, UnreadableImageError], ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling(kind: type[Exception]) -> None:
    needed = inspect.signature(kind).parameters.values() if "__init__" in vars(kind) else []
    others = [7 for parameter in needed if parameter.default is parameter.empty][1:]
    error = kind("storage: s3://b is away", *others)
    error.noted = {"shard": 3}  # type: ignore[attr-defined]
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert str(back) == str(error)
    assert vars(back) == vars(error)
    assert getattr(back, "retryable", None) == getattr(error, "retryable", None)


def test_a_number_with_what_it_counts() -> None:
    counts = [
        (0, "0 cores"),
        (1, "1 core"),
        (1.0, "1 core"),
        (0.5, "0.5 cores"),
        (2.0, "2 cores"),
        (2_000_000, "2,000,000 cores"),
    ]
    for number, text in counts:
        assert errors.counted(number, "core") == text
