"""One gallery of image files: contact sheets, comparisons and what is decoded the fast way. All verbs: test_every_verb."""

import argparse
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from gallery import CASES, PICTURE
from PIL import Image, ImageOps, features
from stand_ins import Identity
from torch import Tensor

from cluster import compare
from data_shards import Dataset, open_dataset
from data_shards.__main__ import main as data_shards
from data_shards.checking.headers import look_at
from data_shards.commands import contact_sheet
from data_shards.dataset.rows import IndexRows
from data_shards.images.encode import Encoding, encode_file
from data_shards.images.read import image_size, load_image
from data_shards.storage import RangeReader, locate
from data_shards.stream.read import SampleReader, decoded
from nla_cyclegan.pictures import grids
from nla_cyclegan.weights import generators

# In a tar the suffix says which file of a sample is its image.
NAMES = [name for name in CASES if name.isascii() and " " not in name and "." in name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery") / "images" / "trainA"
    folder.mkdir(parents=True)
    for name in NAMES:
        # Names that differ in more than their suffix: results are matched by stem.
        CASES[name][0](folder / f"{name.replace('.', '_')}{Path(name).suffix}")
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, Tensor]:
    """What the one reader shows, by the file's stem; that it is right, test_pack_formats holds."""
    return {path.stem: load_image(path) for path in sorted(folder.iterdir())}


def streamed(dataset: Dataset) -> dict[str, Tensor]:
    """What a stream decodes, before the augmentation."""
    with closing(RangeReader(locate(dataset.uri))) as ranges:
        reader = SampleReader(dataset, "trainA", ranges, IndexRows(ranges, dataset))
        samples = reader.read(np.arange(dataset.splits["trainA"].samples))
    pixels = {sample.key: decoded(sample) for sample in samples}
    assert [key for key, image in pixels.items() if isinstance(image, str)] == []
    return pixels  # type: ignore[return-value]


def index_of(folder: Path) -> Dataset:
    """The files in a tar, as they are, indexed."""
    shards = folder.parent.parent / "indexed"
    if not shards.exists():
        shards.mkdir()
        with tarfile.open(shards / "trainA-0.tar", "w") as tar:
            for path in sorted(folder.iterdir()):
                tar.add(path, path.name)
        assert data_shards(["index", str(shards), "--jobs", "1"]) == 0
    return open_dataset(shards)


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerances: dict[str, float]) -> None:
    assert found.keys() == expected.keys()
    for key, image in expected.items():
        assert found[key].shape == image.shape, key
        assert (found[key].int() - image.int()).abs().float().mean() <= tolerances.get(key, 0), key


def test_index_and_stream(folder: Path, expected: dict[str, Tensor]) -> None:
    dataset = index_of(folder)
    assert dataset.manifest["skipped"] == []
    jpegs = {path.stem: 0.5 for path in folder.glob("*.jpg")}
    assert_same(streamed(dataset), expected, jpegs)
    with closing(RangeReader(locate(dataset.uri))) as ranges:
        rows = IndexRows(ranges, dataset).table(["key", "width", "height", "is_plain"]).to_pylist()
    assert {row["key"]: (row["height"], row["width"]) for row in rows} == {
        key: tuple(image.shape[1:]) for key, image in expected.items()
    }
    plain = {"plain_jpg", "grey_jpg", "progressive_jpg", "srgb_jpg", "no_exif_jpg", "plain_png", "grey_png"}
    plain |= {"between_jpg", "film_jpg", "film_png", "long_png", "one_png", "two_mpo"}
    assert {row["key"] for row in rows if row["is_plain"]} == plain
    assert data_shards(["verify", dataset.uri]) == 0


def test_contact_sheet(folder: Path, expected: dict[str, Tensor], tmp_path: Path) -> None:
    dataset = index_of(folder)
    contact_sheet.draw(dataset, tmp_path / "sheet.png", seed=0)
    sheet = Image.open(tmp_path / "sheet.png")
    numbers = contact_sheet.choose(dataset.splits["trainA"].samples, 0)
    top = contact_sheet.MARGIN + contact_sheet.TITLE + contact_sheet.HEADING
    side = contact_sheet.THUMB
    for place, number in enumerate(numbers):
        row, column = divmod(place, contact_sheet.COLUMNS)
        x, y = contact_sheet.MARGIN + column * contact_sheet.CELL_X, top + row * contact_sheet.CELL_Y
        image = Image.fromarray(list(expected.values())[number].permute(1, 2, 0).numpy())
        width, height = ImageOps.contain(image, (side, side)).size
        thumb = image.resize((max(1, width), max(1, height)), Image.Resampling.LANCZOS)
        left, above = x + (side - thumb.width) // 2, y + (side - thumb.height) // 2
        shown = sheet.crop((left, above, left + thumb.width, above + thumb.height))
        assert np.abs(np.asarray(shown).astype(int) - np.asarray(thumb)).mean() <= 1


def test_compare(folder: Path, expected: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Tensor] = []

    def take(_: object, image: Tensor, *others: object) -> list[object]:
        taken.append(image)
        return [None]

    monkeypatch.setattr(generators, "load_generator", lambda *_: Identity())
    monkeypatch.setattr(grids, "comparison_row", take)
    monkeypatch.setattr(grids, "picture_grid", lambda *_: None)
    options = argparse.Namespace(
        inputs=[str(folder)], rows=len(expected), size=1000, runs=["a", "b"], direction="B2A", device="cpu"
    )
    compare._grid(options, ["a", "b"])
    assert_same(dict(zip(expected, taken, strict=True)), expected, {})


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(10))
def test_one_place_decides_the_size(file_format: str, orientation: int, tmp_path: Path) -> None:
    if file_format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{file_format.lower()}"
    PICTURE.save(path, file_format, exif=exif)
    width, height = PICTURE.size
    sides = (width, height) if orientation in (5, 6, 7, 8) else (height, width)
    assert image_size(path) == sides
    assert load_image(path).shape == (3, *sides)
    header = look_at(path.read_bytes())
    assert (header.height, header.width) == sides
    encoded = encode_file(path, Encoding())
    assert (encoded.height, encoded.width) == sides


def test_no_warning_of_pillow_reaches_the_user(folder: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom data_shards.images.read import image_size, read_picture\n"
        "for path in Path(sys.argv[1]).iterdir():\n    image_size(path), read_picture(path)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    assert done.stderr == ""
