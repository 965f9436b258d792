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
        ("data: {uri: a}\nseed: 1\ndata: {load_size: 3}\n", "data is given twice, in lines 1 and 3"),
        ("data:\n  uri: a\n  load_size: 3\n  uri: b\n", "uri is given twice, in lines 2 and 4"),
        ("list:\n- {a: 1, a: 2}\n", "a is given twice, in lines 2 and 2"),
        ("optimizer: {lr: 1}\noptimizer.lr: 2\n", "optimizer.lr is given twice, once with a dot"),
        ("optimizer.lr: 2\noptimizer: 3\n", "optimizer is given twice, once with a dot, in lines 1 and 2"),
        ("a:\n  b.c: 1\n  b:\n    c: 2\n", "a.b.c is given twice, once with a dot, in lines 2 and 4"),
        ("a.b: {c.d: 1}\na: {b.c: {d: 2}}\n", "a.b.c.d is given twice, once with a dot, in lines 1 and 2"),
        ("a: {lr: 1, 'lr': 2}\n", "lr is given twice, in lines 1 and 1"),
        ("a: {<<: {x: 1}, <<: {x: 2}}\n", "<< is given twice, in lines 1 and 1"),
        ("a: &a {x: 1, x: 2}\nb: {<<: *a}\n", "x is given twice, in lines 1 and 1"),
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


def test_merge_keys_of_merge_keys_are_not_taken_for_fields_that_stand_twice(tmp_path: Path) -> None:
    """The deeper mapping is built after the one that merges it."""
    text = "x:\n  y:\n    b: &b {lr: 1}\n    c: &c {<<: *b, lr: 2}\nuse: {<<: *c, lr: 3}\n"
    assert read(tmp_path, text) == {"x": {"y": {"b": {"lr": 1}, "c": {"lr": 2}}}, "use": {"lr": 3}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\n2: 3\n", "line 2: 2 is not a field name; expected text"),
        ("on: 3\n", "line 1: on is not a field name"),
        ("? [a, b]\n: 1\n", "line 1: a list or a mapping is not a field name"),
        ("a..b: 3\n", "line 1: a..b is not a field name; a dot needs a name on each side"),
        ("- a: 1\n", "expected fields .*, got list"),
        ("a:\n\tb: 1\n", "not a YAML file .*line 2"),
        ("a: 2024-99-99\n", "not a YAML file .month must be in 1..12"),
        ("a: &a {b: *a}\n", "a field contains itself, or is nested too deeply"),
        ("a: 1\n---\nb: 2\n", "not a YAML file .*single document"),
        (
            "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else 'x'] * 9)}]\n" for n in range(12)),
            "more than 100,000 values, as its aliases repeat them",
        ),
    ],
)
def test_what_holds_no_fields_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        read(tmp_path, text)
    assert str(refused.value).isprintable()


def test_what_is_no_text_file_of_this_machine_is_said(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("name: é\n".encode("latin-1"))
    for file, message in (
        (str(tmp_path), "cannot be read .Is a directory"),
        (str(tmp_path / "latin.yaml"), "not a YAML file, which is text in UTF-8"),
        ("s3://bucket/run.yaml", "expected a file of this machine, not a URI"),
    ):
        with pytest.raises(UserError, match=f"^--config {file}: {message}"):
            read_yaml(file)


def test_numbers_are_what_they_look_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    read(tmp_path, "a: 017\nb: 1:30\nc: 1_000\nd: -0x1F\ne: 1.5\n")
    assert read_yaml("~/run.yaml") == {"a": "017", "b": "1:30", "c": 1000, "d": -31, "e": 1.5}


@pytest.mark.parametrize("text", [b"", b"# none\n", b"---\n", b"null\n"])
def test_a_file_without_fields_is_empty(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "run.yaml").write_bytes(text)
    assert read_yaml(str(tmp_path / "run.yaml")) == {}


def test_json_may_be_indented_by_tabs(tmp_path: Path) -> None:
    assert read(tmp_path, '{\n\t"a": {\n\t\t"b.c": [1,\t2]\n\t}\n}\n') == {"a": {"b": {"c": [1, 2]}}}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_what_windows_writes_is_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "run.yaml").write_text("name: é\n", encoding)
    assert read_yaml(str(tmp_path / "run.yaml")) == {"name": "é"}


def test_names_that_are_dotted_themselves_stay(tmp_path: Path) -> None:
    text = "space: {optimizer.lr: {choice: [1]}}\nbudget.hours: 3\n"
    expected = {"space": {"optimizer.lr": {"choice": [1]}}, "budget": {"hours": 3}}
    assert read(tmp_path, text, dotted=("space",)) == expected


def test_the_projects_configurations_are_found_from_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_yaml("cluster/configs/paper.yaml")["data"]
    assert read_yaml("tuning/configs/demo.yaml", dotted=("override", "space"))["name"] == "demo"
    with pytest.raises(UserError, match=r"--config cluster/configs/other\.yaml: cannot be read"):
        read_yaml("cluster/configs/other.yaml")
    (tmp_path / "cluster" / "configs").mkdir(parents=True)
    (tmp_path / "cluster" / "configs" / "paper.yaml").write_text("seed: 3")
    assert read_yaml("cluster/configs/paper.yaml") == {"seed": 3}


@pytest.mark.parametrize(
    ("file", "meant"),
    [
        ("cluster/configs/papr.yaml", "cluster/configs/paper.yaml or tuning/configs/paper.yaml"),
        ("fast.yaml", "cluster/configs/fast.yaml"),
    ],
)
def test_a_file_that_is_not_there_may_be_one_of_this_project(
    file: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=rf"{file}: cannot be read \(No such file or directory\); did you mean {meant}\?$"
    ):
        read_yaml(file)
