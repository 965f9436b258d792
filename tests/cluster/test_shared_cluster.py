"""Real Ray: runs on a cluster that others use too, and on one whose machines with GPUs have not come yet."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny
from head import ray_head
from test_cluster import ROOT, TIMEOUT_S, write_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# Holds one core until it is told to end.
HOLDER = """
import sys
import ray

ray.init(address=sys.argv[1], logging_level="ERROR")

@ray.remote(num_cpus=1)
class Holder:
    def ready(self):
        return True

holder = Holder.remote()
ray.get(holder.ready.remote())
print("held", flush=True)
sys.stdin.readline()
"""


@contextmanager
def another_job(environment: dict[str, str]) -> Iterator[None]:
    """One that uses a core of the cluster."""
    command = [sys.executable, "-c", HOLDER, environment["HEAD"]]
    job = subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert job.stdout
        assert job.stdout.readline() == "held\n"
        yield
    finally:
        job.kill()
        job.wait()


def train(environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    """Exit status and errors."""
    command = [sys.executable, "-m", "cluster", "train", "--address", environment["HEAD"], *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=TIMEOUT_S)
    return done.returncode, done.stderr


def test_workers_are_chosen_from_what_another_job_leaves_free(tmp_path: Path) -> None:
    file = write_config(tmp_path / "run.yaml", tiny.config(tiny.pack_dataset(tmp_path), tmp_path / "runs"))
    with ray_head(cpus=2) as environment, another_job(environment):
        status, err = train(environment, "--config", file, "--scaling.workers", "2")
        assert status == 2
        assert "2 CPU cores and 0 GPUs (1 core and 0 GPUs of them in use), room for 1 worker" in err
        # It does not wait for the core that is in use.
        status, err = train(environment, "--config", file, "--scaling.workers", "1,2", "--scaling.resize_s", "1")
        assert status == 0, err
        assert "starting 1 to 2 workers on CPU, 1 core each: no GPU in the cluster, scaling.workers" in err


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="Ray's fake machines have no GPU, and this one has")
def test_a_head_alone_does_not_train_while_machines_with_gpus_may_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All GPUs are hidden from tests, and Ray would not count that of its fake machines either.
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    file = write_config(tmp_path / "run.yaml", tiny.config(tiny.pack_dataset(tmp_path), tmp_path / "runs"))
    with ray_head(cpus=2, node_types={"gpu": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 4}}) as environment:
        status, err = train(environment, "--config", file)
        assert status == 2
        assert "scaling.gpu: no GPU in the cluster yet, but its autoscaler can start 4 machines with GPUs" in err
        # The machine comes, by Ray's word with a GPU; the worker says what CUDA says.
        status, err = train(environment, "--config", file, "--scaling.gpu", "true", "--name", "waits")
        assert status == 2
        assert "starting 1 worker on a GPU, 8 cores: scaling.gpu true, " in err
        assert "a worker on a GPU was planned, and torch " in err
        status, err = train(environment, "--config", file, "--scaling.gpu", "false", "--name", "on-cores")
        assert status == 0, err
