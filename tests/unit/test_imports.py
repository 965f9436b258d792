"""Imports run one way: tuning -> cluster -> nla_cyclegan, data_shards."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "data_shards": set(),
    "nla_cyclegan": {"data_shards"},
    "cluster": {"data_shards", "nla_cyclegan"},
    "tuning": {"cluster", "data_shards", "nla_cyclegan"},
}
# What starts Ray or runs inside it.
RAY_FILES = {
    "driver.py",
    "follow.py",
    "progress.py",
    "ray_internals.py",
    "rendezvous.py",
    "retry.py",
    "session.py",
    "sinks.py",
    "submit.py",
    "watchdog.py",
    "worker.py",
}


def imports(file: Path) -> Iterator[tuple[str, bool]]:
    """Top-level package and whether the import runs when the file is imported."""
    tree = ast.parse(file.read_text())
    lazy = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        or (isinstance(outer, ast.If) and "TYPE_CHECKING" in ast.unparse(outer.test))
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""] if node.level == 0 else []
        for name in names:
            yield name.partition(".")[0], id(node) not in lazy


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_what_is_below_them(package: str) -> None:
    others = MAY_IMPORT.keys() - MAY_IMPORT[package] - {package}
    found = {
        f"{file.relative_to(ROOT)}: {name}" for file in files(package) for name, _ in imports(file) if name in others
    }
    assert found == set()


@pytest.mark.parametrize("package", ["data_shards", "nla_cyclegan"])
def test_the_leaves_know_nothing_of_ray(package: str) -> None:
    found = {(file.name, at_once) for file in files(package) for name, at_once in imports(file) if name == "ray"}
    # `data_shards bench` measures against Ray Data, and imports it for that alone.
    assert found <= {("peers.py", False)}


def test_ray_is_imported_only_where_it_is_started() -> None:
    assert {file.name for file in files("cluster") for name, _ in imports(file) if name == "ray"} <= RAY_FILES


def test_only_what_runs_inside_ray_imports_it_at_once() -> None:
    assert {file.name for file in files("cluster") for name, at_once in imports(file) if name == "ray" and at_once} == {
        "ray_internals.py",
        "rendezvous.py",
        "watchdog.py",
        "worker.py",
    }


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_commands_start_without_heavy_imports(package: str) -> None:
    heavy = {"torch", "torchvision", "ray", "numpy", "pyarrow", "pydantic", "plotly", "webdataset", "PIL"}
    for name in ("__init__.py", "__main__.py"):
        file = ROOT / package / name
        if file.exists():
            assert {found for found, at_once in imports(file) if at_once} & heavy == set()


def test_the_parser_sees_what_it_should(tmp_path: Path) -> None:
    file = tmp_path / "sample.py"
    file.write_text("import ray.train\nfrom .near import x\ndef f():\n    from torch import nn\n")
    assert list(imports(file)) == [("ray", True), ("torch", False)]
