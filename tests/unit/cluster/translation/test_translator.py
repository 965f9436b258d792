"""What a worker makes of the images of a call; Ray hands it the generator and nothing else."""

import json
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray
import torch
from PIL import Image

from cluster.translation import translator
from cluster.translation.calls import Report, sent
from cluster.translation.listing import list_work
from cluster.translation.options import TranslationSettings
from cluster.translation.translator import NO_IMAGE, Translator
from data_shards.errors import StorageAwayError, UserError
from data_shards.images.write import save_picture
from data_shards.storage import locate
from nla_cyclegan import Generator, GeneratorConfig
from nla_cyclegan.__main__ import main
from nla_cyclegan.weights.generators import load_generator, save_generator

TINY = GeneratorConfig(base_channels=2, num_blocks=2, nonlocal_blocks=(1,), nonlocal_gain=1.0)
SIZES = [(32, 32), (18, 41), (9, 30)]
SETTINGS = TranslationSettings("B2A", ".png", None, 4, 1024, "fp32")


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "get", lambda reference: reference)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "generator_ba.safetensors"
    save_generator(Generator(TINY), file)
    return file


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for index in range(15):
        file = tmp_path / "photos" / f"sub {index % 2}" / f"{index}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (*SIZES[index % 3], 3), np.uint8)).save(file)
    return tmp_path / "photos"


def paint(worker: Translator, folder: Path, out: Path) -> tuple[int, dict[str, str]]:
    report = worker.translate(list_work(locate(folder), locate(out), worker.settings.suffix).images)
    return report.done, report.left_out


def test_the_files_are_those_of_translate(weights: Path, photos: Path, tmp_path: Path) -> None:
    """To the last byte, though they went through the network with others."""
    for suffix, size in {"png": None, "webp": 20}.items():
        given = ["--format", suffix, *(["--size", str(size)] if size else [])]
        one, two = tmp_path / f"one {suffix}", tmp_path / f"two {suffix}"
        command = ["translate", "--weights", str(weights), "--device", "cpu", *given, "--out", str(one), str(photos)]
        assert main(command) == 0
        settings = TranslationSettings("B2A", f".{suffix}", size, 4, 1024, "fp32")
        worker = Translator([load_generator(weights)], str(photos), str(two), settings, 2, use_gpu=False)
        assert paint(worker, photos, two) == (15, {})
        for file in photos.rglob("*.jpg"):
            name = file.relative_to(photos).with_suffix(f".{suffix}")
            assert (one / name).read_bytes() == (two / name).read_bytes()


def test_what_does_not_come_through_is_named_and_the_rest_is_done(weights: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"nothing")
    (photos / "README").write_text("about these photos")
    (photos / "an image").write_bytes((photos / "sub 0" / "0.jpg").read_bytes())
    save_picture(Image.new("RGB", (8, 8)), photos / "grid.webp")
    Image.new("RGB", (20_000, 8)).save(photos / "wide.png")
    Image.new("RGB", (60, 60)).save(photos / "over the tile.png")
    work = list_work(locate(photos), locate(tmp_path / "out"), ".webp")
    (photos / "sub 1" / "1.jpg").unlink()
    settings = TranslationSettings("B2A", ".webp", None, 4, 44, "fp32")
    report = Translator(
        [load_generator(weights)], str(photos), str(tmp_path / "out"), settings, 2, use_gpu=False
    ).translate(work.images)
    left_out = report.left_out
    assert report.done == 15
    assert {name: reason.partition(" (")[0].partition(",")[0] for name, reason in left_out.items()} == {
        "README": NO_IMAGE,
        "broken.jpg": "not a readable image",
        "grid.webp": "drawn by this project",
        "wide.png": "20",
        "over the tile.png": "60 x 60 px",
        "sub 1/1.jpg": "it was there when IN was listed",
    }
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["an image.webp", "sub 0", "sub 1"]


def test_storage_that_stays_away_ends_the_call(weights: Path, photos: Path, tmp_path: Path, monkeypatch) -> None:
    def away(*arguments: object) -> bytes:
        raise StorageAwayError("cannot read 3.jpg, tried for 60 s")

    worker = Translator([load_generator(weights)], str(photos), str(tmp_path / "out"), SETTINGS, 2, use_gpu=False)
    monkeypatch.setattr(translator, "read_file", away)
    with pytest.raises(UserError, match="tried for 60 s"):
        paint(worker, photos, tmp_path / "out")
    images = list_work(locate(photos), locate(tmp_path / "out"), ".png").images
    (report,) = worker(pa.table({"images": [sent(images.slice(3, 2))]}))["report"]
    assert json.loads(report) | {"left_out": {}} == {
        "done": 0, "left_out": {}, "error": "cannot read 3.jpg, tried for 60 s", "retryable": True,
    }  # fmt: skip


def test_a_gpu_that_is_planned_and_not_there_is_reported(weights: Path, photos: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    worker = Translator([load_generator(weights)], str(photos), str(tmp_path / "out"), SETTINGS, 2, use_gpu=True)
    images = list_work(locate(photos), locate(tmp_path / "out"), ".png").images
    (report,) = worker(pa.table({"images": [sent(images)]}))["report"]
    assert "translate on CPU cores with --no-gpu" in json.loads(report)["error"]


def test_two_calls_at_once_share_the_network_and_the_folder(weights: Path, photos: Path, tmp_path: Path) -> None:
    worker = Translator([load_generator(weights)], str(photos), str(tmp_path / "out"), SETTINGS, 2, use_gpu=False)
    images = list_work(locate(photos), locate(tmp_path / "out"), ".png").images
    reports: list[Report] = []
    calls = [threading.Thread(target=lambda: reports.append(worker.translate(images))) for _ in range(2)]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert [report.done for report in reports] == [15, 15]
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) == 15
    for file in files:
        Image.open(file).load()


class Watching(torch.nn.Module):
    """A stand-in that sees how many images are read and written whenever it is given one; on a CPU it is given one at a time."""

    config = TINY

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.counts, self.seen = counts, list[tuple[int, int]]()

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        self.seen.append((self.counts["read_file"], self.counts["write_file"]))
        return x_BCHW


def test_images_are_read_ahead_of_the_network_and_written_behind_it(photos: Path, tmp_path: Path, monkeypatch) -> None:
    counts: Counter[str] = Counter()
    for name in ("read_file", "write_file"):
        work = getattr(translator, name)
        monkeypatch.setattr(
            translator, name, lambda *given, name=name, work=work: (work(*given), counts.update([name]))[0]
        )
    for index in range(25):
        (photos / f"{index}.jpg").write_bytes((photos / "sub 0" / "0.jpg").read_bytes())
    network = Watching(counts)
    worker = Translator([network], str(photos), str(tmp_path / "out"), SETTINGS, 2, use_gpu=False)
    # On a thread of its own the reading is done when the network begins.
    worker._pool = Immediate()
    assert paint(worker, photos, tmp_path / "out") == (40, {})
    assert counts == {"read_file": 40, "write_file": 40}
    batch = SETTINGS.batch
    for before, (read, written) in enumerate(network.seen):
        # Two batches more than this one are begun, and all before are written.
        assert read >= min(40, before // batch * batch + 3 * batch - 1)
        assert before - batch <= written <= before


class Immediate:
    """Threads that are faster than anything."""

    def submit(self, work: Callable[..., Any], *given: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(work(*given))
        return future
