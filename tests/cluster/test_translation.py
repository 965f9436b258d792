"""A folder translated by Ray Data's actors: workers and the command killed, in a bucket, and on machines that an autoscaler starts."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from head import ray_head
from listening import command_line, family
from object_stores import ObjectStore
from PIL import Image

from data_shards.images.read import load_image
from data_shards.storage import locate, read_file, write_file
from nla_cyclegan import Generator, GeneratorConfig, load_generator, translate_images
from nla_cyclegan.weights.generators import save_generator

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 180.0
# About 50 ms an image on one core.
CONFIG = GeneratorConfig(base_channels=8, num_blocks=3, nonlocal_blocks=(1,), nonlocal_gain=1.0)
WORKER = "ray::MapWorker(MapBatches(Translator))"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "generator_ba.safetensors"
    save_generator(Generator(CONFIG), file)
    return file


def draw(folder: Path, count: int, size: int) -> None:
    random = np.random.default_rng(0)
    for index in range(count):
        file = folder / f"sub {index % 3}" / f"{index:04}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (size + 4 * (index % 2), size, 3), np.uint8)).save(file)


def start(
    weights: Path, source: str | Path, out: str | Path, *options: str, verb: str = "translate", **environment: str
) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "cluster",
        *verb.split(),
        "--weights",
        str(weights),
        *options,
        str(source),
        str(out),
    ]
    variables = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=variables)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, errors = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    return process.returncode, out, errors


def written(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png") if not path.name.startswith("."))


def until_written(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    give_up = time.monotonic() + TIMEOUT_S
    while len(written(folder)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up, f"{len(written(folder))} images in {TIMEOUT_S:g} s"
        time.sleep(0.05)


def workers(command: subprocess.Popen[str]) -> list[int]:
    """Its processes that translate."""
    return [pid for pid in family(command.pid) if command_line(pid).startswith(WORKER)]


def check(weights: Path, source: Path, out: Path) -> None:
    generator = load_generator(weights)
    names = sorted(str(path.relative_to(source)) for path in source.rglob("*.png"))
    assert written(out) == names
    for name in names:
        expected = translate_images(generator, load_image(source / name)[None])[0]
        assert torch.equal(load_image(out / name), expected), name


def test_workers_and_the_command_may_be_killed(weights: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    draw(source, 240, 64)
    (source / "damaged.jpg").write_bytes(b"\xff\xd8\xff nothing")
    first = start(weights, source, out, "--workers", "1", "--cpus", "1")
    try:
        until_written(out, 20, first)
        (worker,) = workers(first)
        os.kill(worker, signal.SIGKILL)
        until_written(out, len(written(out)) + 30, first)
        assert worker not in workers(first)
    finally:
        first.kill()
        first.communicate()
    there = len(written(out))
    assert 50 <= there < 240
    before = {name: (out / name).stat().st_mtime_ns for name in written(out)}
    status, said, errors = ended(start(weights, source, out, "--workers", "1", "--cpus", "1"))
    assert status == 0, errors
    # A worker that was left may have written one more.
    assert said.startswith(f"240 of 241 images translated (B2A): {out}; ")
    assert said.endswith("1 left out, see left_out.txt there\n")
    assert (out / "left_out.txt").read_text().startswith("damaged.jpg\tnot a readable image (")
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    check(weights, source, out)


def test_from_a_bucket_into_a_bucket(
    weights: Path, tmp_path: Path, rclone: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rclone.use(monkeypatch)
    draw(tmp_path / "in", 12, 32)
    bucket = rclone.make_bucket()
    photos, painted = (bucket.uri(name) for name in ("photos", "painted"))
    for name in written(tmp_path / "in"):
        write_file(locate(photos), name, (tmp_path / "in" / name).read_bytes())
    status, said, errors = ended(start(weights, photos, painted, "--cpus", "1"))
    assert (status, said.partition(":")[0]) == (0, "12 of 12 images translated (B2A)"), errors
    status, said, errors = ended(start(weights, photos, painted, "--cpus", "1"))
    assert status == 0, errors
    assert said.endswith("; 12 of them were there already\n")
    assert "Ray" not in errors
    for name in written(tmp_path / "in"):
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes(read_file(locate(painted), name) or b"")
    check(weights, tmp_path / "in", tmp_path / "out")


def test_what_a_worker_cannot_write_ends_the_command_in_a_line(weights: Path, tmp_path: Path) -> None:
    draw(tmp_path / "in", 12, 32)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub 1").write_text("in the way")
    status, _, errors = ended(start(weights, tmp_path / "in", tmp_path / "out", "--cpus", "1"))
    assert status == 2, errors
    last = errors.splitlines()[-1]
    assert last.startswith("error: cannot write sub 1/")
    assert f"to {tmp_path}/out: " in last
    assert "Traceback" not in errors


def test_a_job_on_machines_that_an_autoscaler_starts(weights: Path, tmp_path: Path) -> None:
    """The head has no cores: what is translated at all is so on a machine that was started for it."""
    draw(tmp_path / "in", 40, 32)
    machines: dict[str, dict[str, Mapping[str, int] | int]] = {"worker": {"resources": {"CPU": 1}, "max_workers": 2}}
    with ray_head(cpus=0, node_types=machines) as environment:
        status, said, errors = ended(
            start(weights, tmp_path / "in", tmp_path / "out", "--cpus", "1", verb="submit translate", **environment)
        )
    assert status == 0, said + errors
    assert "40 of 40 images translated (B2A)" in said
    check(weights, tmp_path / "in", tmp_path / "out")
