"""evaluate on many images, twice, and where memory ends."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from image_folders import make_dataset
from measured import distances_of, gathered_of
from PIL import Image
from torch import Tensor

from cluster.ranks.world import World
from cluster.training.loop import train
from nla_cyclegan.__main__ import main
from nla_cyclegan.commands.evaluation import evaluator, files, memory
from nla_cyclegan.metrics import gathered, sampled
from nla_cyclegan.metrics.distances import frechet_distance, memorization_distance
from nla_cyclegan.metrics.gathered import Gathered, distances
from nla_cyclegan.metrics.lab_colours import COLOUR
from nla_cyclegan.metrics.sliced_wasserstein import STRUCTURE


class StandIn:
    """Stands for Inception: the mean colours of the quarters of an image."""

    sha256, published, calls = "0" * 64, False, 0

    def to(self, device: torch.device) -> "StandIn":
        return self

    def __call__(self, images_NCHW: Tensor) -> Tensor:
        StandIn.calls += len(images_NCHW)
        return torch.nn.functional.adaptive_avg_pool2d(images_NCHW.float(), 2).flatten(1)


def blocks(seed: int, side: int = 48) -> np.ndarray[Any, Any]:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return coarse.repeat(side // 6, axis=0).repeat(side // 6, axis=1)


def write(folder: Path, seeds: range) -> Path:
    folder.mkdir()
    for index, seed in enumerate(seeds):
        Image.fromarray(blocks(seed)).save(folder / f"{index:03}.png")
    return folder


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(files, "find_inception", lambda choice: StandIn())
    for number, name in enumerate(("inputs", "painted", "real")):
        write(tmp_path / name, range(100 * number, 100 * number + 20))
    return tmp_path


def evaluate(folders: Path, *options: object) -> dict[str, Any]:
    given = {"--translations": "painted", "--inputs": "inputs", "--real": "real"}
    paths = [word for option, name in given.items() for word in (option, str(folders / name))]
    json_file = folders / "scores.json"
    assert main(["evaluate", *paths, "--json", str(json_file), "--device", "cpu", *map(str, options)]) == 0
    return dict(json.loads(json_file.read_text())["B2A"])


def stacked(folder: Path) -> Tensor:
    files = sorted(folder.iterdir())
    return torch.stack([torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) for file in files])


def test_sets_that_pass_by_in_batches_are_as_far_apart_as_sets_in_memory(folders: Path) -> None:
    a, b = stacked(folders / "inputs"), stacked(folders / "real")
    sets = []
    for images, cuts in ((a, (1, 12, 7)), (b, (16, 4))):
        found = Gathered(48, len(images))
        for part in images.split(cuts):
            found.add(part)
        sets.append(found)
    for kind in (STRUCTURE, COLOUR):
        assert distances(kind, *sets) == distances_of(kind, a, b)


def test_of_many_images_there_are_fewer_vectors_each(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampled, "MOST", 200)
    found = gathered_of(stacked(folders / "inputs"))
    assert [len(found.vectors(kind, 0)) for kind in gathered.KINDS] == [200, 200]


def test_statistics_are_kept_and_used_again(
    folders: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = write(folders / "training", range(300, 310))
    file = folders / "kept.npz"
    options = ["--statistics", file, "--train-images", training]
    first = evaluate(folders, *options)
    assert "statistics of real and training images are kept in" in capsys.readouterr().err
    read: list[Path] = []
    load = evaluator.Reader.batches

    def watched(self: Any, label: str, *columns: Any) -> Any:
        read.extend(path for column in columns for path in column)
        return load(self, label, *columns)

    monkeypatch.setattr(evaluator.Reader, "batches", watched)
    StandIn.calls = 0
    assert evaluate(folders, *options) == first
    said = capsys.readouterr().err
    assert f"statistics of 20 real images are taken from {file}" in said
    assert f"statistics of 10 training images are taken from {file}" in said
    # Neither read nor sent through the network again.
    assert {path.parent.name for path in read} == {"inputs", "painted"}
    assert StandIn.calls == 40
    # Another seed, another size, other images.
    for changed in (["--seed", 1], ["--size", 32]):
        evaluate(folders, *options, *changed)
        assert "belong to another size, seed, network or version" in capsys.readouterr().err
    evaluate(folders, *options)
    capsys.readouterr()
    Image.fromarray(blocks(999)).save(folders / "real" / "003.png")
    other = evaluate(folders, *options)
    said = capsys.readouterr().err
    assert "its statistics of real images belong to other images, and are computed anew" in said
    assert "statistics of 10 training images are taken" in said
    assert other["inputs"]["swd"] != first["inputs"]["swd"]
    assert evaluate(folders, *options) == other == evaluate(folders, "--train-images", training)


def tampered(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    with np.load(file) as arrays:
        stored = dict(arrays)
    change(stored)
    np.savez(file, **stored)


def with_about(stored: dict[str, Any], **fields: Any) -> None:
    stored["about"] = np.array(json.dumps(json.loads(str(stored["about"])) | fields))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: file.write_bytes(b""), "damaged, or written by another version"),
        (lambda file: file.write_bytes(file.read_bytes()[:-9]), "damaged, or written by another version"),
        (
            lambda file: tampered(file, lambda stored: with_about(stored, sets=[1])),
            "damaged, or written by another version",
        ),
        (
            lambda file: tampered(file, lambda stored: with_about(stored, sets={"real": {}})),
            "damaged, or written by another version",
        ),
        (
            lambda file: tampered(file, lambda stored: stored.pop("real.swd.0")),
            "its statistics of real images are computed anew",
        ),
        (lambda file: tampered(file, lambda stored: stored.update({"real.swd.0": np.zeros(3)})), "are computed anew"),
        (lambda file: with_zeros(file, 2000), "Bad CRC-32"),
    ],
)
def test_a_damaged_file_of_statistics_is_written_anew(
    folders: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], object], said: str
) -> None:
    file = folders / "kept.npz"
    expected = evaluate(folders, "--statistics", file)
    damage(file)
    assert evaluate(folders, "--statistics", file) == expected
    error = capsys.readouterr().err
    assert f"{file}: " in error
    assert said in error
    assert error.endswith("statistics of real images are kept in " + f"{file}\n")


@pytest.mark.parametrize("content", [b"PK no archive", b"{}", b"\x89PNG" * 20])
def test_a_file_of_something_else_is_not_taken_for_statistics(
    folders: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folders / "run.json"
    file.write_bytes(content)
    with pytest.raises(AssertionError):
        evaluate(folders, "--statistics", file)
    assert (
        f"error: --statistics {file}: not a file of statistics, and would be overwritten; choose another"
        in capsys.readouterr().err
    )
    assert file.read_bytes() == content


def with_zeros(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place : place + 100] = bytes(100)
    file.write_bytes(content)


def test_mifid_is_fid_unless_training_images_were_copied(folders: Path) -> None:
    training = write(folders / "training", range(100, 130))
    copied = evaluate(folders, "--train-images", training)["translations"]
    network = StandIn()
    painted, real = network(stacked(folders / "painted")), network(stacked(folders / "real"))
    assert copied["fid"] == pytest.approx(frechet_distance(painted, real), rel=1e-6)
    assert copied["memorization"] == pytest.approx(0, abs=1e-6)
    assert copied["mifid"] > 1000 * copied["fid"]
    others = write(folders / "others", range(900, 905))
    distance = memorization_distance(painted, network(stacked(others)))
    found = evaluate(folders, "--train-images", others)["translations"]
    assert found["memorization"] == pytest.approx(distance, rel=1e-5)
    assert found["mifid"] == pytest.approx(found["fid"] / distance if distance < 0.1 else found["fid"], rel=1e-4)


def test_every_phase_has_a_bar(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels: list[str] = []
    real = evaluator.Progress.__init__

    def named(self: Any, label: str, *arguments: Any) -> None:
        labels.append(label)
        real(self, label, *arguments)

    monkeypatch.setattr("data_shards.progress.Progress.__init__", named)
    evaluate(folders, "--train-images", write(folders / "training", range(300, 303)))
    assert labels == ["sizes", "real images", "B2A: translations", "training images", "B2A: distances"]


@pytest.mark.parametrize(
    ("free_bytes", "advice"), [(1.0e9, r"--size 12\d\d fits"), (0.2e9, "no size fits: end other programs")]
)
def test_a_size_for_which_memory_is_too_little_is_refused(
    folders: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, free_bytes: float, advice: str
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: free_bytes)
    paths = ["--translations", "painted", "--inputs", "inputs", "--real", "real"]
    monkeypatch.chdir(folders)
    assert main(["evaluate", *paths, "--size", "8192", "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert re.match(rf"error: too little memory at 8192 px: about [0-9.]+ GB are needed, .* free; {advice}$", error)
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (MemoryError(), " GB are free; give a smaller --size, or end other programs\n"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "error: too little memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "error: the device is out of memory at 48 px"),
        (OSError(28, "No space left on device"), "no room for temporary files; make some, or name another folder in TMPDIR"),
    ],
    ids=["python", "cpu", "gpu", "disk"],
)  # fmt: skip
def test_an_end_of_memory_is_one_line(
    folders: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, raised: Exception, message: str
) -> None:
    def fail(*arguments: object) -> None:
        raise raised

    monkeypatch.setattr(Gathered, "add", fail)
    monkeypatch.chdir(folders)
    paths = ["--translations", "painted", "--inputs", "inputs", "--real", "real"]
    assert main(["evaluate", *paths, "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_images_that_the_run_has_seen_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri, images = make_dataset(tmp_path, tiny.SPLITS, width=61).uri, tmp_path / "images"
    config = tiny.config(uri, tmp_path / "runs", schedule={"images": 16}, validation={"every": 16})
    train(config, World())
    run = tmp_path / "runs" / "tiny"

    def said(weights: str, inputs: str, real: str, *options: str) -> str:
        folders = ["--inputs", str(images / inputs), "--real", str(images / real), "--inception", "none", *options]
        assert main(["evaluate", "--weights", weights, *folders, "--device", "cpu"]) == 0
        return capsys.readouterr().err

    warning = "of these images are held-out images that chose this checkpoint as the best"
    seen = "of these images are images that this run was trained on"
    assert f"warning: {run}@best: 9 {warning}" in said(f"{run}@best", "testB", "testA")
    mixed = said(f"{run}@best", "testB", "trainA")
    assert f"4 {warning}" in mixed
    assert f" 10 {seen}" in mixed
    trained = said(f"{run}@best", "trainB", "trainA")
    assert warning not in trained
    assert f"warning: {run}@best: 22 {seen}" in trained
    assert "warning" not in said(f"{run}@newest", "testB", "testA")
    # The edges of a square in the middle fall on other pixels at another size.
    assert f"9 {warning}" in said(f"{run}@best", "testB", "testA", "--fit", "crop", "--size", "36")
    # Encoded again, and at another size.
    for path in (images / "testB").iterdir():
        with Image.open(path) as image:
            image.resize((96, 80)).save(path, quality=60)
    assert f"4 {warning}" in said(f"{run}@best", "testB", "trainA")
    shutil.rmtree(uri)
    assert f"{run}: whether it was trained on these images is not known (no dataset at" in said(
        str(run), "testB", "testA"
    )


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """Peaks of processes of their own, in which batches are of 50 images, and a set has the vectors of a hundred at most."""
    program = (
        "import resource, sys\nfrom nla_cyclegan.__main__ import main\nfrom nla_cyclegan.metrics import sampled\n"
        "sampled.MOST, sampled.PIXELS = 12800, 50 * 48 * 48\nstatus = main(sys.argv[1:])\n"
        "print(status, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks_kb = []
    for count in (150, 1200):
        for number, name in enumerate(("inputs", "painted", "real")):
            write(tmp_path / f"{name} {count}", range(10_000 * number, 10_000 * number + count))
        painted, inputs, real = (str(tmp_path / f"{name} {count}") for name in ("painted", "inputs", "real"))
        options = ["--translations", painted, "--inputs", inputs, "--real", real, "--inception", "none"]
        command = [sys.executable, "-c", program, "evaluate", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        status, peak_kb = done.stdout.split()[-2:]
        assert status == "0"
        peaks_kb.append(int(peak_kb))
    # Of 1,050 images of three sets more, the pixels alone are 22 MB, and the patches of one scale 240 MB.
    assert peaks_kb[1] - peaks_kb[0] < 20_000
