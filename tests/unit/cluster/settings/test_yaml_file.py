"""YAML files: a key that stands twice, dotted keys."""

from pathlib import Path

import pytest

from cluster.settings.yaml_file import read_yaml
from data_shards.errors import UserError


def read(tmp_path: Path, text: str, **options: tuple[str, ...]) -> object:
    (tmp_path / "run.yaml").write_text(text)
    return read_yaml(str(tmp_path / "run.yaml"), **options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {uri: a}\nseed: 1\ndata: {load_size: 3}\n", "data stands twice, in lines 1 and 3"),
        ("data:\n  uri: a\n  load_size: 3\n  uri: b\n", "uri stands twice, in lines 2 and 4"),
        ("list:\n- {a: 1, a: 2}\n", "a stands twice, in lines 2 and 2"),
        ("optimizer: {lr: 1}\noptimizer.lr: 2\n", "optimizer.lr stands twice, once with a dot"),
        ("optimizer.lr: 2\noptimizer: 3\n", "optimizer stands twice, once with a dot"),
    ],
)
def test_a_key_that_stands_twice_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, text)


def test_dotted_keys_are_what_they_name(tmp_path: Path) -> None:
    text = "optimizer.lr: 2\noptimizer: {name: adam}\nmodel:\n  generator.num_blocks: 3\nmodel.generator.base_channels: 4\n"
    expected = {"optimizer": {"lr": 2, "name": "adam"}, "model": {"generator": {"num_blocks": 3, "base_channels": 4}}}
    assert read(tmp_path, text) == expected


def test_a_merge_key_may_be_overridden(tmp_path: Path) -> None:
    text = "base: &base {a: 1, b: 2}\nuse:\n  <<: *base\n  b: 3\n"
    assert read(tmp_path, text) == {"base": {"a": 1, "b": 2}, "use": {"a": 1, "b": 3}}


def test_names_that_are_dotted_themselves_stay(tmp_path: Path) -> None:
    text = "space: {optimizer.lr: {choice: [1]}}\nbudget.hours: 3\n"
    expected = {"space": {"optimizer.lr": {"choice": [1]}}, "budget": {"hours": 3}}
    assert read(tmp_path, text, dotted=("space",)) == expected
