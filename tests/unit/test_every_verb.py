"""Folders and tars through every verb: a row each, and what all verbs do with it. See tests/helpers/gallery_*.py."""

import io
import os
import re
import tarfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from closed_files import modes_hold
from gallery import PICTURE
from gallery_folders import ROWS, Row
from gallery_tars import ROWS as TARS
from gallery_tars import holed
from PIL import Image
from stand_ins import Identity
from torch import Tensor

from data_shards import Dataset, open_dataset
from data_shards.__main__ import main as data_shards
from data_shards.dataset.rows import IndexRows
from data_shards.images.find import find_images
from data_shards.images.fit import Fit
from data_shards.images.read import load_image
from data_shards.images.transforms import whole
from data_shards.packing.tars import IMAGE_SUFFIXES, key_and_suffix, printable
from data_shards.storage import RangeReader, locate
from data_shards.stream.read import SampleReader, decoded
from nla_cyclegan.__main__ import main as nla_cyclegan
from nla_cyclegan.commands import translate_files
from nla_cyclegan.commands.evaluation import files as evaluate_files
from nla_cyclegan.commands.evaluation import reading as evaluate_reading
from nla_cyclegan.commands.outputs import output_name

EVALUATED = 32


@dataclass(frozen=True)
class Outcome:
    """The exit status of a verb, and the images that it has read: path below the folder -> uint8 [3, H, W]."""

    status: int
    images: dict[str, Tensor]


def streamed(dataset: Dataset) -> dict[str, Tensor]:
    """What training decodes, before the augmentation, by the name of the source."""
    with closing(RangeReader(locate(dataset.uri))) as ranges:
        index = IndexRows(ranges, dataset)
        names = index.table(["name"])["name"].to_pylist()
        samples = SampleReader(dataset, "trainA", ranges, index).read(np.arange(len(names)))
    images = dict(zip(names, map(decoded, samples), strict=True))
    assert [image for image in images.values() if isinstance(image, str)] == []
    return images  # type: ignore[return-value]


def pack(folder: Path, out: Path, patch: pytest.MonkeyPatch) -> Outcome:
    status = data_shards(["pack", str(folder.parent), str(out), "--jobs", "1"])
    assert data_shards(["verify", str(out), "--jobs", "1"]) == 0
    assert data_shards(["inspect", str(out), "--contact-sheet", str(out / "sheet.png")]) == 0
    return Outcome(status, streamed(open_dataset(out)))


def index(folder: Path, out: Path, patch: pytest.MonkeyPatch) -> Outcome:
    """Of a tar that has all that the folder has."""
    out.mkdir()
    with tarfile.open(out / "trainA.tar", "w") as tar:
        tar.add(folder, ".")
    status = data_shards(["index", str(out), "--jobs", "1"])
    assert data_shards(["verify", str(out), "--jobs", "1"]) == 0
    return Outcome(status, {name.removeprefix("./"): image for name, image in streamed(open_dataset(out)).items()})


def translate(folder: Path, out: Path, patch: pytest.MonkeyPatch) -> Outcome:
    patch.setattr(translate_files, "load_generators", lambda _, directions: dict.fromkeys(directions, Identity()))
    status = nla_cyclegan(["translate", "--weights", ".", "--out", str(out), "--device", "cpu", str(folder)])
    targets = {str(below): out / output_name(below, ".png") for below in find_images([folder]).images.values()}
    return Outcome(status, {name: load_image(target) for name, target in targets.items() if target.exists()})


def evaluate(folder: Path, out: Path, patch: pytest.MonkeyPatch) -> Outcome:
    taken: dict[str, Tensor] = {}
    load = evaluate_reading.load_whole

    def note(path: Path, size: int, fit: Fit) -> Tensor:
        return taken.setdefault(os.path.relpath(path, folder), load(path, size, fit))

    patch.setattr(evaluate_reading, "load_whole", note)
    patch.setattr(evaluate_files, "load_generators", lambda _: {"A2B": Identity(), "B2A": Identity()})
    patch.setattr(evaluate_files, "about_weights", lambda _: {})
    out.mkdir()
    PICTURE.save(out / "real.png")
    arguments = ["--weights", ".", "--inputs", str(folder), "--real", str(out), "--size", str(EVALUATED)]
    status = nla_cyclegan(["evaluate", *arguments, "--inception", "none", "--device", "cpu"])
    return Outcome(status, {name: image for name, image in taken.items() if not name.startswith("../")})


VERBS: dict[str, Callable[[Path, Path, pytest.MonkeyPatch], Outcome]] = {
    verb.__name__: verb for verb in (pack, index, translate, evaluate)
}


def expected_of(row: Row, verb: str) -> dict[str, tuple[Tensor, float]]:
    """What a verb shows of a row. In a tar links are none, and the suffix says which file of a sample is its image."""
    expected = {}
    for name, (pixels, tolerance) in row.shown.items():
        image = torch.from_numpy(np.array(pixels)).round().to(torch.uint8).permute(2, 0, 1)
        if verb == "evaluate":
            image = whole(image, EVALUATED)
        if verb in ("pack", "index"):
            # A JPEG is decoded by another library there, and a WebP is encoded once more by `pack`.
            tolerance += 2 if tolerance else 0
            name = printable(name)
        key, suffix = key_and_suffix(name)
        if verb != "index" or (key and suffix.lower() in IMAGE_SUFFIXES):
            expected[name] = image, tolerance
    return expected


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", ROWS)
def test_what_a_verb_does(
    name: str, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row, folder = ROWS[name], tmp_path / "images" / "trainA"
    folder.mkdir(parents=True)
    row.make(folder)
    outcome = VERBS[verb](folder, tmp_path / "out", monkeypatch)
    out, err = capsys.readouterr()
    assert outcome.status == 0
    expected = expected_of(row, verb)
    links = {shown for shown in expected if any(path.is_symlink() for path in _steps(folder, shown))}
    assert outcome.images.keys() == (expected.keys() - links if verb == "index" else expected.keys())
    for shown, image in outcome.images.items():
        pixels, tolerance = expected[shown]
        assert image.shape == pixels.shape, shown
        assert (image.int() - pixels.int()).abs().float().mean() <= tolerance + 0.5, shown
    for said in row.in_tar if verb == "index" else row.said:
        assert said in err
    # The first ten on the terminal, all of them in the manifest.
    manifest = tmp_path / "out" / "manifest.json"
    named = err + (manifest.read_text() if manifest.exists() else "")
    assert [skipped for skipped in row.skipped if skipped not in named] == []
    count = {"translate": f"; {len(row.skipped)} left out", "evaluate": f"left out: {len(row.skipped)} of"}
    assert not row.skipped or count.get(verb, f"skipped ({len(row.skipped)})") in out + err
    assert "Traceback" not in err
    assert "Warning" not in err


def _steps(folder: Path, name: str) -> list[Path]:
    path = folder / name
    return [path, *(parent for parent in path.parents if parent != folder and folder in parent.parents)]


@pytest.mark.parametrize("name", TARS)
def test_what_becomes_of_a_tar(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row, dataset = TARS[name], str(tmp_path)
    row.make(tmp_path / row.file)
    status = data_shards(["index", dataset, "--jobs", "1", *row.options])
    err = capsys.readouterr().err
    assert [said for said in row.said if said not in err] == []
    assert status == (0 if row.names else 2)
    if not row.names:
        # One line, and nothing is written.
        assert err.count("error: ") == 1
        assert [path.name for path in tmp_path.iterdir()] == [row.file]
        return
    images = streamed(open_dataset(dataset))
    assert tuple(images) == row.names
    for shown, image in images.items():
        source = PICTURE if not shown.endswith(".bmp") else Image.open(io.BytesIO(holed())).convert("RGB")
        pixels = torch.from_numpy(np.array(source)).permute(2, 0, 1).int()
        assert (image.int() - pixels).abs().float().mean() <= (3 if shown.endswith(".jpg") else 0)
    assert data_shards(["verify", dataset, "--jobs", "1"]) == 0
    assert data_shards(["inspect", dataset, "--contact-sheet", str(tmp_path / "sheet.png")]) == 0


def test_nothing_came_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(translate_files, "load_generators", lambda _, directions: dict.fromkeys(directions, Identity()))
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "bad.jpg").write_bytes(b"no picture")
    arguments = ["translate", "--weights", ".", "--device", "cpu", "--out", str(tmp_path / "out"), str(folder)]
    assert nla_cyclegan(arguments) == 1
    PICTURE.save(folder / "good.png")
    assert nla_cyclegan(arguments) == 0
    assert nla_cyclegan([*arguments, "--strict"]) == 1
    assert capsys.readouterr().out.splitlines()[-1].endswith("; 1 left out, see above")


@pytest.mark.parametrize("verb", ["pack", "translate", "evaluate"])
def test_what_is_closed_is_left_out(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images" / "trainA"
    (folder / "closed").mkdir(parents=True)
    for name in ("good.png", "shut.png", "shut", "closed/one.png"):
        PICTURE.save(folder / name, "PNG")
    (folder / "shut.png").chmod(0)
    (folder / "shut").chmod(0)
    (folder / "closed").chmod(0)
    with modes_hold():
        outcome = VERBS[verb](folder, tmp_path / "out", monkeypatch)
    out, err = capsys.readouterr()
    assert outcome.status == 0
    assert outcome.images.keys() == {"good.png"}
    assert "cannot be opened: 1 folder (closed/)" in err
    assert "cannot be read: 1 file (shut)" in err
    assert re.search(r"shut\.png: cannot be read.*Permission denied", err)
    assert verb != "translate" or out.endswith("; 3 left out, see above\n")
    (folder / "closed").chmod(0o700)


@pytest.mark.parametrize("verb", [translate, evaluate])
def test_a_closed_folder_is_not_all_where_all_are_asked_for(
    verb: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "images"
    (folder / "closed").mkdir(parents=True)
    PICTURE.save(folder / "good.png")
    lax = nla_cyclegan
    monkeypatch.setattr(f"{__name__}.nla_cyclegan", lambda arguments: lax([*arguments, "--strict"]))
    assert verb(folder, tmp_path / "out", monkeypatch).status == 0
    (folder / "closed").chmod(0)
    with modes_hold():
        assert verb(folder, tmp_path / "again", monkeypatch).status == 1
    (folder / "closed").chmod(0o700)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("000.jpg", "000.png"), "would both be written to"),
        (("a", "a.png"), "would both be written to"),
        (("x.jpg", "x.png/y.jpg"), "would be both the result of .* and the folder of"),
    ],
)
def test_results_that_would_clash_are_known_before(
    names: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in names:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        PICTURE.save(tmp_path / "images" / name, "PNG")
    assert nla_cyclegan(["translate", "--weights", ".", "--out", str(tmp_path / "out"), str(tmp_path / "images")]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()
