"""Imports run one way: from package to package, from room to room, and into the mathematics as little as possible."""

import ast
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Each package imports from those after it alone.
PACKAGES = ["tuning", "cluster", "nla_cyclegan", "data_shards"]
# From top to bottom; a room (a folder, or a file beside the folders) imports from the floors below its own alone.
FLOORS = {
    "tuning": [
        {"__main__"},
        {"sweep", "submit", "best", "results", "dashboard"},
        {"trials"},
        {"settings"},
        {"analysis"},
        {"search_space"},
        {"__init__"},
    ],
    "cluster": [
        {"__main__"},
        {"train", "translate", "submit", "status", "copy_run", "remove", "compare"},
        {"translation"},
        {"jobs", "group"},
        {"machines"},
        {"training"},
        {"settings"},
        {"memory"},
        {"evaluation", "checkpoints", "inspection"},
        {"records"},
        {"ranks", "ownership", "processes"},
        {"__init__"},
    ],
    "nla_cyclegan": [
        {"__main__", "__init__"},
        {"show"},
        {"commands"},
        {"metrics", "pictures"},
        {"training", "inference", "weights"},
        {"kernels"},
        {"model"},
        {"pixels"},
    ],
    "data_shards": [
        {"__main__", "__init__"},
        {"commands", "checking"},
        {"stream", "synthetic"},
        {"packing"},
        {"images", "download"},
        {"dataset", "local_paths"},
        {"storage", "command_line"},
        {"progress", "memory", "cores", "gpus", "repeats"},
        {"control_groups", "semaphores", "errors", "version"},
    ],
}
# What starts Ray or runs inside it. True: it is imported together with Ray, because only Ray's processes import it.
RAY_FILES = {
    "cluster/group/driver.py": False,
    "cluster/group/progress.py": True,
    "cluster/group/rendezvous.py": True,
    "cluster/group/retry.py": False,
    "cluster/group/spares.py": True,
    "cluster/group/watchdog.py": True,
    "cluster/group/worker.py": True,
    "cluster/jobs/final_errors.py": False,
    "cluster/jobs/follow.py": False,
    "cluster/jobs/runtime_env.py": False,
    "cluster/jobs/submission.py": False,
    "cluster/machines/autoscaler.py": False,
    "cluster/machines/forked_ids.py": True,
    "cluster/machines/ray_internals.py": True,
    "cluster/machines/session.py": False,
    "cluster/records/sinks.py": False,
    "cluster/translation/translator.py": False,
    "cluster/translation/run.py": False,
    # `bench` measures against Ray Data, and imports it for that alone.
    "data_shards/commands/peers.py": False,
    "tuning/trials/alike.py": True,
    "tuning/trials/driver.py": False,
    "tuning/trials/patience.py": True,
    "tuning/trials/record.py": True,
    "tuning/trials/admission.py": False,
    "tuning/trials/scheduling.py": True,
    "tuning/trials/trial.py": True,
    "tuning/trials/tune_trials.py": True,
}
# Networks, steps and metrics as functions of tensors.
MATHEMATICS = ["model", "kernels", "training", "inference", "metrics", "pixels"]
# Reads a file of weights.
NO_MATHEMATICS = "nla_cyclegan/metrics/inception.py"


@cache
def imports(file: Path) -> list[tuple[str, bool]]:
    """Dotted name of each module, and whether the import runs when the file is imported."""
    tree = ast.parse(file.read_text())
    lazy = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        or (isinstance(outer, ast.If) and "TYPE_CHECKING" in ast.unparse(outer.test))
        for inner in ast.walk(outer)
    }
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports are not followed here"
            names = [node.module or ""]
        found += [(name, id(node) not in lazy) for name in names]
    return found


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def top(module: str) -> str:
    return module.partition(".")[0]


def room_of(package: str, file: Path) -> str:
    return file.relative_to(ROOT / package).parts[0].removesuffix(".py")


def found_in(name: str, paths: list[Path], *, at_once: bool = False) -> set[str]:
    """The files that import a package; with `at_once` those that do so when they are imported."""
    return {
        str(file.relative_to(ROOT))
        for file in paths
        for module, is_at_once in imports(file)
        if top(module) == name and (is_at_once or not at_once)
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_what_is_below_them(package: str) -> None:
    above = PACKAGES[: PACKAGES.index(package)]
    assert {name: found for name in above if (found := found_in(name, files(package)))} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_import_only_what_is_below_them(package: str) -> None:
    floor_of = {room: floor for floor, rooms in enumerate(FLOORS[package]) for room in rooms}
    wrong = []
    for file in files(package):
        room = room_of(package, file)
        assert room in floor_of, f"{room} is a new room: give it a floor"
        for module, _ in imports(file):
            # What a package exports is of its own rooms, so they do not take it from there.
            other = [*module.split("."), "__init__"][1]
            if top(module) == package and other != room and floor_of[other] <= floor_of[room]:
                wrong.append(f"{file.relative_to(ROOT)}: {module}")
    assert wrong == []


def test_ray_is_imported_only_where_it_is_started() -> None:
    paths = [file for package in PACKAGES for file in files(package)]
    assert found_in("ray", paths) == set(RAY_FILES)
    assert found_in("ray", paths, at_once=True) == {file for file, at_once in RAY_FILES.items() if at_once}


def test_one_module_imports_what_is_private_in_ray() -> None:
    found = {
        str(file.relative_to(ROOT))
        for package in PACKAGES
        for file in files(package)
        for module, _ in imports(file)
        if top(module) == "ray" and any(part.startswith("_") or part == "internal_kv" for part in module.split("."))
    }
    assert found == {"cluster/machines/ray_internals.py"}


def test_the_mathematics_imports_torch_numpy_and_configurations_alone() -> None:
    allowed = {"torch", "numpy", "triton", *sys.stdlib_module_names}
    wrong = []
    for file in files("nla_cyclegan"):
        if room_of("nla_cyclegan", file) not in MATHEMATICS or str(file.relative_to(ROOT)) == NO_MATHEMATICS:
            continue
        own = allowed | ({"pydantic"} if file.name == "config.py" else set())
        for module, _ in imports(file):
            is_own = top(module) == "nla_cyclegan" and module.split(".")[1] in MATHEMATICS
            if top(module) not in own and not is_own:
                wrong.append(f"{file.relative_to(ROOT)}: {module}")
    assert wrong == []


def test_configurations_import_pydantic_alone() -> None:
    """Those of components; `settings` nest them."""
    allowed = {"pydantic", "pydantic_core", *sys.stdlib_module_names}
    wrong = [
        f"{file.relative_to(ROOT)}: {module}"
        for package in PACKAGES
        for file in files(package)
        if file.name == "config.py" and room_of(package, file) != "settings"
        for module, _ in imports(file)
        if top(module) not in allowed
    ]
    assert wrong == []


@pytest.mark.parametrize("package", PACKAGES)
def test_front_doors_import_nothing_heavy(package: str) -> None:
    light = {"data_shards", *sys.stdlib_module_names}
    for name in ("__init__.py", "__main__.py"):
        file = ROOT / package / name
        assert {top(module) for module, at_once in imports(file) if at_once} <= light


@pytest.mark.parametrize("package", ["data_shards", "nla_cyclegan"])
def test_a_shell_completes_every_public_name(package: str) -> None:
    module = import_module(package)
    assert set(dir(module)) >= set(module.__all__)


def test_the_parser_sees_what_it_should(tmp_path: Path) -> None:
    file = tmp_path / "sample.py"
    file.write_text("import ray.train\ndef f():\n    from torch import nn\n")
    assert imports(file) == [("ray.train", True), ("torch", False)]
    relative = tmp_path / "relative.py"
    relative.write_text("from .near import x\n")
    with pytest.raises(AssertionError, match="relative imports"):
        imports(relative)


@pytest.mark.parametrize("package", PACKAGES)
def test_text_files_are_utf_8_whatever_the_locale_says(package: str) -> None:
    """Under GBK or Latin-1 a file that is opened without an encoding cannot be read, or has other characters."""
    fewest = {"read_text": 1, "write_text": 2}
    calls = (
        (file.name, node)
        for file in files(package)
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    )
    assert [
        (name, node.lineno)
        for name, node in calls
        if len(node.args) < fewest.get(node.func.attr, 0) and "encoding" not in [each.arg for each in node.keywords]
    ] == []


def test_no_file_has_the_name_of_a_module_of_pythons_own() -> None:
    """`python -m cluster` in the folder `cluster` would import that one in its place."""
    assert [
        file for package in PACKAGES for file in (ROOT / package).glob("*.py") if file.stem in sys.stdlib_module_names
    ] == []


@cache
def bound_in(module: str) -> set[str] | None:
    """Names that a module of ours binds when it is imported, and the modules in it; None where there is no such module."""
    place = ROOT / module.replace(".", "/")
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    if not file.exists():
        return None
    tree = ast.parse(file.read_text())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom | ast.Import)
        for alias in node.names
    }
    return names | ({path.stem for path in place.iterdir()} if place.is_dir() else set())


def test_what_the_benchmarks_import_is_there() -> None:
    """They are not collected with the tests, and most of them run seldom."""
    missing = [
        f"{file.relative_to(ROOT)}: {node.module}.{alias.name}"
        for file in sorted((ROOT / "tests/benchmarks").rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and top(node.module or "") in PACKAGES
        for alias in node.names
        if alias.name not in (bound_in(node.module or "") or ())
    ]
    assert missing == []
