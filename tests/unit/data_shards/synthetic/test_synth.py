"""The synthetic dataset: reproducible to the byte, and with the differences between photographs and paintings it claims."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFilter

from data_shards.__main__ import main
from data_shards.errors import UserError
from data_shards.synthetic import paint, scenes, synth

Array = npt.NDArray[np.float64]
CONFIG = synth.Synth(size=128, train=6, test=len(scenes.KINDS), seed=3)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dest = tmp_path_factory.mktemp("synth") / "data"
    synth.synth(dest, CONFIG, jobs=2)
    return dest


def images(dataset: Path, split: str) -> list[Array]:
    return [np.asarray(Image.open(path), np.float64) / 255 for path in sorted((dataset / split).iterdir())]


def psnr(a: Array, b: Array) -> float:
    return float(-10 * np.log10(((a - b) ** 2).mean()))


def smoothed(image: Array) -> Array:
    picture = Image.fromarray((image * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1.2))
    return np.asarray(picture, np.float64) / 255


def noise_level(image: Array) -> float:
    """Median size of the finest diagonal Haar coefficients of the luminance: noise, hardly edges (Donoho, 1995)."""
    grey = paint.luminance(image)
    return float(np.median(np.abs(grey[::2, ::2] - grey[1::2, ::2] - grey[::2, 1::2] + grey[1::2, 1::2])))


def coherence(image: Array) -> float:
    """Median over 4 x 4 blocks of how far gradients agree in direction: 0 (noise) to 1 (parallel lines)."""

    def blocks(field: Array) -> Array:
        return field.reshape(len(field) // 4, 4, -1, 4).mean(axis=(1, 3))

    gy, gx = np.gradient(paint.luminance(image))
    xx, yy, xy = blocks(gx * gx), blocks(gy * gy), blocks(gx * gy)
    return float(np.median(np.hypot(xx - yy, 2 * xy) / (xx + yy + 1e-9)))


def test_layout(dataset: Path) -> None:
    names = {split: sorted(p.name for p in (dataset / split).iterdir()) for split in synth.SCENES}
    assert {split: len(found) for split, found in names.items()} == {
        "trainA": 6, "trainB": 6, "testA": 13, "testB": 13, "truthB2A": 13,
    }  # fmt: skip
    assert names["testB"] == names["truthB2A"] != names["testA"]
    assert {name.removesuffix(".jpg").split("-")[1] for name in names["testB"]} == set(scenes.KINDS)
    assert json.loads((dataset / "synth.json").read_text()) == {**CONFIG._asdict(), "drawing": synth.DRAWING}
    with Image.open(dataset / "trainA" / names["trainA"][0]) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (128, 128))


def test_bytes_depend_on_neither_processes_nor_the_number_of_images(dataset: Path, tmp_path: Path) -> None:
    synth.synth(tmp_path / "fewer", CONFIG._replace(train=3, test=2), jobs=1)
    fewer, all_of_them = files_of(tmp_path / "fewer"), files_of(dataset)
    pictures = {name for name in fewer if name.endswith(".jpg")}
    assert len(pictures) == 12
    assert {name: fewer[name] for name in pictures} == {name: all_of_them[name] for name in pictures}


def test_every_image_is_another_one_and_another_seed_draws_others(dataset: Path, tmp_path: Path) -> None:
    synth.synth(tmp_path / "other", CONFIG._replace(train=1, test=1, seed=4))
    ours = [content for name, content in files_of(dataset).items() if name.endswith(".jpg")]
    others = [content for name, content in files_of(tmp_path / "other").items() if name.endswith(".jpg")]
    assert len({*ours, *others}) == len(ours) + len(others)


@pytest.mark.parametrize("kind", scenes.KINDS)
@pytest.mark.parametrize("size", [32, 45])
def test_every_kind_can_be_drawn_and_painted_at_any_size(kind: str, size: int) -> None:
    for seed in range(3):
        scene = scenes.draw(kind, size, np.random.default_rng(seed))
        painting = paint.paint(scene, np.random.default_rng(seed))
        assert scene.shape == (2 * size, 2 * size, 3)
        assert painting.shape == (size, size, 3)
        for pixels in (scene, painting):
            assert np.isfinite(pixels).all()
            assert 0 <= pixels.min() < pixels.max() <= 1
            assert pixels.std() > 0.02


def test_photographs_are_noisy_and_paintings_are_bright_and_colourful(dataset: Path) -> None:
    photographs, paintings = images(dataset, "testB"), images(dataset, "testA")
    noise = [np.median([noise_level(image) for image in domain]) for domain in (photographs, paintings)]
    dark = [np.quantile(paint.luminance(np.stack(domain)), 0.02) for domain in (photographs, paintings)]
    chroma = [np.ptp(np.stack(domain), axis=-1).mean() for domain in (photographs, paintings)]
    assert noise[0] > 1.3 * noise[1]
    assert dark[0] < 0.25 < 0.32 < dark[1]
    assert chroma[1] > 1.2 * chroma[0]


def test_brush_strokes_run_in_one_direction_at_a_time(dataset: Path) -> None:
    painted, photographed = ([coherence(image) for image in images(dataset, split)] for split in ("truthB2A", "testB"))
    assert min(painted) > 0.5 > np.median(photographed)
    assert np.median(painted) > 1.2 * np.median(photographed)


def test_the_truth_shows_its_photographs_scene(dataset: Path) -> None:
    photographs, truths = images(dataset, "testB"), images(dataset, "truthB2A")
    grey = [[smoothed(image).mean(axis=-1).ravel() for image in domain] for domain in (photographs, truths)]
    likeness = np.corrcoef(np.stack(grey[0]), np.stack(grey[1]))[: len(photographs), len(photographs) :]
    assert (likeness.argmax(axis=1) == np.arange(len(photographs))).all()
    assert likeness.diagonal().min() > 0.7


def test_a_good_translation_gains_several_decibels(dataset: Path) -> None:
    photographs, truths = images(dataset, "testB"), images(dataset, "truthB2A")
    untouched = np.mean([psnr(photo, truth) for photo, truth in zip(photographs, truths, strict=True)])
    graded = [psnr(paint.palette(smoothed(photo)), truth) for photo, truth in zip(photographs, truths, strict=True)]
    assert 13 < untouched < 18
    assert np.mean(graded) > untouched + 5


def test_a_finished_dataset_is_left_alone(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    synth.synth(dataset, CONFIG)
    assert "already: nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*")} == before


def test_other_content_is_refused_and_kept(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_of(dataset)
    assert main(["synth", str(dataset), "--size", "64", "--seed", "5"]) == 2
    assert f"error: {dataset} holds something else already" in capsys.readouterr().err
    assert files_of(dataset) == before
    (tmp_path / "mine.txt").write_text("kept")
    assert main(["synth", str(tmp_path)]) == 2
    assert files_of(tmp_path) == {"mine.txt": b"kept"}


def test_progress_counts_scenes_not_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    advanced: list[int] = []
    monkeypatch.setattr(synth.Progress, "advance", lambda self, count=1: advanced.append(count))
    synth.synth(tmp_path / "data", synth.Synth(size=32, train=1, test=1))
    assert sum(advanced) == 4


def test_an_interrupted_drawing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synth, "_draw_files", disk_full)
    with pytest.raises(UserError, match="No space left on device"):
        synth.synth(tmp_path / "data", CONFIG)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", [["--size", "8"], ["--train", "0"], ["--seed", "-1"], ["--jobs", "0"]])
def test_options_out_of_range_are_named(tmp_path: Path, option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["synth", str(tmp_path / "data"), *option]) == 2
    assert f"error: {option[0]} {option[1]} is out of range" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
