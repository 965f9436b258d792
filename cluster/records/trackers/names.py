"""The classes that `observe.sinks` names: whether they are there, without importing them, and importing them."""

import ast
from collections.abc import Iterable
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec

from cluster.records.config import TRACKERS
from cluster.records.sinks import Sink
from cluster.records.trackers.tracked_run import TrackedRun

OWN = {name: f"{__package__}.{name}:{name.capitalize()}Tracker" for name in TRACKERS}
# Which server, and where in it; nothing secret. Ray's workers and jobs get them from the process that starts the run.
VARIABLES = (
    *("WANDB_BASE_URL", "WANDB_ENTITY", "WANDB_PROJECT", "WANDB_MODE", "WANDB_DIR"),
    *("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"),
)


def problems(sinks: Iterable[str]) -> list[str]:
    return [f"observe.sinks: {problem}" for sink in sinks if (problem := _problem(sink))]


def make(sink: str, run: TrackedRun) -> Sink:
    """Import the class and construct it. Raises: whatever it does."""
    module, _, name = OWN.get(sink, sink).partition(":")
    made: Sink = getattr(import_module(module), name)(run)
    return made


def _problem(sink: str) -> str | None:
    if sink in OWN:
        # A folder of that name in the working directory is no package.
        installed = (spec := find_spec(sink)) and spec.origin
        return None if installed else f"{sink} is not installed: pip install 'nla-cyclegan[{sink}]'"
    module, _, name = sink.partition(":")
    try:
        spec = find_spec(module)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {module!r}")
        defined = _defines(spec, name)
    except (Exception, SystemExit) as error:
        # Looking for a.b imports a, which is the user's code.
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return (
            f"{sink}: module {module} cannot be imported ({reason}); it must be installed, or lie in "
            "the working directory, on every machine of the run"
        )
    return None if defined else f"{sink}: module {module} has no {name} ({spec.origin or 'a folder'})"


def _defines(spec: ModuleSpec, name: str) -> bool:
    """Whether a module that has not been imported will have this name; True where its source does not say."""
    if spec.origin is None:
        # A folder without __init__.py.
        return False
    get_source = getattr(spec.loader, "get_source", None)
    source = get_source(spec.name) if get_source else None
    if source is None:
        return True
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return not names.isdisjoint({name, "*", "__getattr__"})
