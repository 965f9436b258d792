"""What commands leave among the temporary files: nothing; tests/cluster/test_environments.py looks after those that start Ray."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import yaml

ROOT = Path(__file__).parents[2]
# One process after the other would take a second of imports each.
SCRIPT = """
import sys
from importlib import import_module
for line in sys.stdin.read().splitlines():
    package, *arguments = line.split(" ")
    assert import_module(f"{package}.__main__").main(arguments) == 0, line
"""


@pytest.mark.slow
def test_no_verb_leaves_anything(tmp_path: Path) -> None:
    uri = tiny.pack_dataset(tmp_path)
    run = tiny.settings(uri, tmp_path / "runs", data={"loader_workers": 1}, schedule={"images": 8})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    left = tmp_path / "temporary"
    left.mkdir()
    images, weights = f"{tmp_path}/images", f"{tmp_path}/runs/tiny"
    lines = f"""\
data_shards synth {tmp_path}/synthetic --size 32 --train 4 --test 2 --jobs 2
data_shards pack {images} {tmp_path}/again --jobs 2
data_shards inspect {uri} --contact-sheet {tmp_path}/sheet.png
data_shards verify {uri} --jobs 2
cluster train --local --config {tmp_path}/run.yaml
cluster status {weights}
nla_cyclegan translate --weights {weights} --direction B2A --out {tmp_path}/painted {images}/testB
nla_cyclegan evaluate --translations {tmp_path}/painted --inputs {images}/testB --real {images}/testA --inception none
nla_cyclegan export --weights {weights} --direction B2A --format onnx --out {tmp_path}/generator.onnx
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TORCHINDUCTOR")}
    environment |= {"TMPDIR": str(left), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=lines, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert list(left.iterdir()) == []
