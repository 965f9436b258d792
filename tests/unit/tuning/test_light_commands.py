"""The verbs start without what they do not need."""

import subprocess
import sys
from pathlib import Path

import sweep_records

ROOT = Path(__file__).parents[3]


def call_without(modules: tuple[str, ...], *arguments: str) -> str:
    """What `python -m tuning` prints where these modules cannot be imported."""
    hide = f"import sys; sys.modules.update(dict.fromkeys({modules!r})); from tuning.__main__ import main; "
    command = [sys.executable, "-c", f"{hide}sys.exit(main({list(arguments)!r}))"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_best_configuration_and_the_page_need_neither_torch_nor_ray(tmp_path: Path) -> None:
    hidden = ("torch", "torchvision", "ray", "tensorboard")
    uri = sweep_records.sweep(tmp_path, 10)
    assert "name: fabricated-trial-" in call_without((*hidden, "optuna", "plotly"), "best", uri)
    assert "finished" in call_without((*hidden, "optuna", "plotly"), "results", uri)
    page = str(tmp_path / "page.html")
    assert "10 trials" in call_without(hidden, "dashboard", uri, "--out", page)
