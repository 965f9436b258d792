"""Real Ray: a job whose packages pip installs on the machine for it alone."""

import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import tiny
from head import ray_head
from test_cluster import write_config
from test_submitted_jobs import ends, submit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# What a tracker sees of the process that trains.
MODULE = """
import json, os, sys
from pathlib import Path

class Seen:
    def __init__(self, run):
        server = Path(f"/proc/{os.getppid()}/cmdline").read_text().split(chr(0))
        found = {"prefix": sys.prefix, "server": server, "module": __file__}
        (Path(run.folder) / "seen.json").write_text(json.dumps(found))

    def start(self, images_seen): pass
    def write(self, record): pass
    def close(self): pass
"""


def wheel(folder: Path) -> Path:
    """A package that is installed nowhere, and needs nothing to be built."""
    file, about = folder / "seen_sink-1.0-py3-none-any.whl", "seen_sink-1.0.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("seen_sink.py", MODULE)
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: seen-sink\nVersion: 1.0\n")
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/RECORD", "")
    return file


def small_environment(folder: Path) -> str:
    """The bin folder of a virtual environment that borrows the packages of this one: Ray copies the environment of the cluster whole."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    ray = folder / "bin" / "ray"
    ray.write_text(f"#!{folder}/bin/python\nfrom ray.scripts.scripts import main\nmain()\n")
    ray.chmod(0o755)
    return str(ray.parent)


def test_a_job_trains_in_forks_with_its_own_packages(tmp_path: Path) -> None:
    run = tiny.config(
        tiny.pack_dataset(tmp_path), tmp_path / "runs", name="own", scaling={"workers": 2, "cpus_per_worker": 1}
    )
    file = write_config(tmp_path / "run.yaml", run)
    package, binaries = wheel(tmp_path), small_environment(tmp_path / "venv")
    with ray_head(cpus=3, binaries=binaries) as environment:
        given = ["--config", file, "--observe.sinks", "seen_sink:Seen"]
        alone = submit(environment, *given, "--name", "alone")
        status, out, err = ends(submit(environment, *given, "--pip", str(package)))
        assert status == 0, out + err
        assert "own has finished: 48 images seen" in out
        seen = json.loads((tmp_path / "runs" / "own" / "seen.json").read_text())
        # Its own Python, which Ray has made, also that of the process of which the worker is a fork.
        assert "/runtime_resources/pip/" in seen["prefix"]
        assert seen["module"].startswith(seen["prefix"])
        assert seen["server"][0].startswith(seen["prefix"])
        assert seen["server"][1:3] == ["-m", "cluster.processes.server"]
        # Another job has none of it.
        assert ends(alone)[0] == 2
