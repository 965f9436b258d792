"""Real Ray: a run that is started by `uv run`, in any folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]
# More than Ray would upload.
LARGE_BYTES = 700 << 20


@pytest.mark.parametrize("verb", ["train", "sweep"])
@pytest.mark.parametrize("where", ["checkout", "sub-folder", "large folder"])
def test_what_uv_starts_trains(tmp_path: Path, where: str, verb: str) -> None:
    if verb == "sweep" and where != "large folder":
        pytest.skip("it differs in nothing that depends on the folder")
    folder = {"checkout": ROOT, "sub-folder": ROOT / "cluster", "large folder": tmp_path}[where]
    if where == "large folder":
        # A project of somebody else's, as uv sees it.
        (tmp_path / "pyproject.toml").write_text('[project]\nname = "theirs"\nversion = "1"\n')
        with (tmp_path / "data.bin").open("wb") as file:
            file.truncate(LARGE_BYTES)
    changes = {"scaling": {"workers": 1}, "validation": {"every": 16, "images": 4}}
    settings = tiny.settings(tiny.pack_dataset(tmp_path), tmp_path / "runs", **changes)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    command = {
        "train": ["cluster", "train", "--config", str(tmp_path / "run.yaml")],
        "sweep": [
            "tuning",
            "sweep",
            "--train",
            str(tmp_path / "run.yaml"),
            "--storage",
            str(tmp_path),
            "--trials",
            "1",
        ],
    }[verb]
    uv = [str(Path(sys.executable).with_name("uv")), "run", "--no-sync", "--active"]
    done = subprocess.run(
        [*uv, "python", "-m", *command],
        cwd=folder,
        env={**os.environ, "VIRTUAL_ENV": sys.prefix, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    assert ("tiny has finished: 48 images seen" if verb == "train" else "finished") in done.stdout
