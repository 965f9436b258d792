"""The rooms of cluster import only what lies below them."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[3] / "cluster"
# From the top; the files beside them are the verbs.
FLOORS = (
    "translation",
    "jobs",
    "group",
    "machines",
    "training",
    "settings",
    "memory",
    "evaluation",
    "records",
    "checkpoints",
    "ranks",
    "ownership",
    "processes",
)


def imported(file: Path) -> set[str]:
    """Modules of cluster that a file imports, at any time: `ranks.world`."""
    froms = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
    modules = {f"{node.module}.{alias.name}" for node in froms for alias in node.names if node.module}
    return {module.removeprefix("cluster.") for module in modules if module.startswith("cluster.")}


def test_no_import_runs_up_a_floor() -> None:
    assert {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()} == set(FLOORS)
    upwards = {
        f"{room}/{file.name} imports {module}"
        for floor, room in enumerate(FLOORS)
        for file in (ROOT / room).glob("*.py")
        for module in imported(file)
        if module.partition(".")[0] not in FLOORS[floor:]
    }
    assert upwards == set()
