"""What `observe.sinks` may name, checked before a run starts, without importing it."""

import sys
from pathlib import Path
from typing import Any

import pytest
import tiny

from cluster.records.trackers.names import problems
from cluster.settings.options import parse_options
from cluster.settings.preflight import prepare
from data_shards.errors import UserError


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def write(file: Path, source: str) -> None:
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_text(source)


@pytest.mark.parametrize(
    "source", ["class C: ...", "C = make()", "from x import *", "from x import D as C", "def __getattr__(n): ..."]
)
def test_a_class_is_found_without_its_module_being_imported(source: str, modules: Path) -> None:
    write(modules / "my_tracker.py", f"raise SystemExit('imported')\n{source}\n")
    assert problems(["my_tracker:C"]) == []
    assert "my_tracker" not in sys.modules


@pytest.mark.parametrize(
    ("sink", "message"),
    [
        ("nowhere:C", "module nowhere cannot be imported (ModuleNotFoundError: No module named 'nowhere')"),
        ("nowhere.at.all:C", "module nowhere.at.all cannot be imported"),
        ("there:D", "module there has no D ("),
        ("broken:C", "module broken cannot be imported (IndentationError"),
        ("package.raises:C", "module package.raises cannot be imported (RuntimeError: no)"),
        ("folder:C", "module folder has no C"),
    ],
)
def test_what_is_not_there_is_one_line(sink: str, message: str, modules: Path) -> None:
    write(modules / "there.py", "class C: ...\n")
    write(modules / "broken.py", "class C:\n")
    write(modules / "package" / "__init__.py", "raise RuntimeError('no')\n")
    write(modules / "folder" / "text.txt", "")
    (line,) = problems([sink])
    assert line.startswith(f"observe.sinks: {sink}: {message}")
    assert "\n" not in line


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_an_extra_that_is_not_installed_is_named(name: str, modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems([name]) == []
    monkeypatch.setattr(sys, "path", [str(modules)])
    monkeypatch.delitem(sys.modules, name, raising=False)
    # W&B's own files lie in a folder of its name.
    (modules / name).mkdir()
    assert problems([name]) == [f"observe.sinks: {name} is not installed: pip install 'nla-cyclegan[{name}]'"]


def test_a_run_does_not_start_with_them(tmp_path: Path) -> None:
    config = tiny.config(
        tiny.pack_dataset(tmp_path), tmp_path / "runs", observe={"sinks": ["nowhere:C", "json:dumps", "json:D"]}
    )
    with pytest.raises(UserError) as error:
        prepare(config)
    assert [line.split(":")[1] for line in str(error.value).splitlines()] == [" nowhere", " json"]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("wandb,wandb", "a sink is named twice"),
        ("tensorboard", "'tensorboard' is not a sink; allowed: wandb, mlflow, or module:Class"),
        ("my.module", "'my.module' is not a sink"),
        ("my-module:C", "'my-module:C' is not a sink"),
        ("my.module:C.d", "'my.module:C.d' is not a sink"),
    ],
)
def test_a_value_that_names_none_is_one_line(value: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse_options(["--data.uri", "/data", "--observe.sinks", value])
    assert message in str(error.value)
    assert str(error.value).count("\n") == 0


@pytest.mark.parametrize(
    ("arguments", "sinks"), [([], ()), (["wandb"], ("wandb",)), (["mlflow,a.b:C"], ("mlflow", "a.b:C")), ([""], ())]
)
def test_the_option(arguments: list[str], sinks: tuple[str, ...], monkeypatch: Any) -> None:
    # No variable switches one on.
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    given = ["--observe.sinks", *arguments] if arguments else []
    assert parse_options(["--data.uri", "/data", *given]).config.observe.sinks == sinks
