"""What runs without which package: a machine that packs, translates or shows a status need not have what trains."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
EVALUATED = ["--inputs", "photos/trainA", "--real", "photos/trainB"]
PACKAGES = ["data_shards", "nla_cyclegan", "cluster", "tuning"]
# Of the packages' own help, and of any verb's.
HEAVY_AT_ALL = ["pydantic", "pyarrow", "numpy"]
HEAVY = ["torch", "torchvision", "ray", "tensorboard", "optuna", "plotly", "matplotlib", "pandas"]
VERBS = """
import contextlib, importlib, io, json, sys
front = importlib.import_module(f"{sys.argv[1]}.__main__")
for verb in ([], *([name] for name in front.VERBS)):
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        front.main([*verb, "--help"])
    assert " ".join(["usage: python -m", sys.argv[1], *verb]) in shown.getvalue(), verb
    heavy = json.loads(sys.argv[3 if verb else 2])
    loaded = [name for name in heavy if name in sys.modules]
    if loaded:
        # What it has imported would be blamed on the next.
        sys.exit(f"{verb}: {loaded}")
"""
HIDING = """
import contextlib, importlib, io, json, sys

class Hiding:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in json.loads(sys.argv[1]):
            raise ModuleNotFoundError(f"{name} is hidden", name=name)

sys.meta_path.insert(0, Hiding())
ended = []
for package, *arguments in json.loads(sys.argv[2]):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        status = importlib.import_module(f"{package}.__main__").main(arguments)
    ended.append((status, said.getvalue()))
print(json.dumps(ended))
"""


def run(script: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{script}", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def run_hiding(hidden: list[str], commands: list[list[str]], cwd: Path) -> list[tuple[int, str]]:
    """Exit status and standard error of each command."""
    done = run(HIDING, json.dumps(hidden), json.dumps(commands), cwd=cwd)
    assert done.returncode == 0, done.stderr
    return [(status, said) for status, said in json.loads(done.stdout.splitlines()[-1])]


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A folder with a dataset (packed), a run (runs/run), and photos."""
    with tarfile.open(ROOT / "tests" / "compatibility" / "d3ae586.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    for split in ("trainA", "trainB"):
        (tmp_path / "photos" / split).mkdir(parents=True)
        for index in range(2):
            Image.linear_gradient("L").resize((16, 16)).save(tmp_path / "photos" / split / f"{index}.png")
    return tmp_path


@pytest.mark.parametrize("package", PACKAGES)
def test_help_imports_nothing_heavy(package: str) -> None:
    done = run(VERBS, package, json.dumps(HEAVY_AT_ALL + HEAVY), json.dumps(HEAVY))
    assert done.returncode == 0, done.stderr


def test_what_does_not_train_needs_nothing_that_trains_and_a_missing_extra_is_named(stored: Path) -> None:
    commands = [
        ["data_shards", "pack", "photos", "shards"],
        ["data_shards", "verify", "shards"],
        ["data_shards", "inspect", "shards"],
        ["nla_cyclegan", "translate", "photos/trainA", "--weights", "runs/run", "--out", "translated"],
        ["nla_cyclegan", "evaluate", "--translations", "translated", *EVALUATED, "--inception", "none"],
        ["nla_cyclegan", "export", "--weights", "runs/run", "--format", "safetensors", "--out", "one.safetensors"],
        ["cluster", "status", "runs/run"],
        ["cluster", "compare", "runs/run", "sweeps/sweep/trial-0000"],
        ["tuning", "best", "sweeps/sweep"],
    ]
    # The other extra's verb: tests/unit/nla_cyclegan/commands/test_export.py.
    missing = ["nla_cyclegan", "evaluate", "--weights", "runs/run", *EVALUATED, "--inception", "weights.pth"]
    hidden = ["ray", "optuna", "plotly", "tensorboard", "torch_fidelity"]
    *ended, (status, said) = run_hiding(hidden, [*commands, missing], stored)
    assert [(command, said) for command, (status, said) in zip(commands, ended, strict=True) if status] == []
    assert status == 2
    assert "error: " in said
    assert "pip install 'nla-cyclegan[metrics]'" in said


def test_a_status_needs_no_torch(stored: Path) -> None:
    commands = [["cluster", "status", "runs/run", "--verify"], ["cluster", "status", "sweeps/sweep", "--json"]]
    assert [(status, said) for status, said in run_hiding(["torch", "ray"], commands, stored) if status] == []


def test_the_packages_say_that_they_are_typed() -> None:
    assert [package for package in PACKAGES if not (ROOT / package / "py.typed").is_file()] == []
