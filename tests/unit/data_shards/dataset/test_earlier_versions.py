"""Datasets of index version 2: without the column is_plain, and with sizes as stored, not as shown."""

import hashlib
import io
import json
import tarfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from image_folders import make_dataset, make_folder, picture
from PIL import Image
from torch import Tensor

from data_shards import Dataset, open_dataset
from data_shards.__main__ import main
from data_shards.dataset.manifest import INDEX, MANIFEST, index_bytes
from data_shards.dataset.rows import IndexRows
from data_shards.packing import pack as packing
from data_shards.packing.shards import UNFINISHED
from data_shards.storage import RangeReader, locate
from data_shards.stream.read import Sample, SampleReader, decoded


def as_version_2(folder: Path, size: tuple[int, int] | None = None) -> Dataset:
    """The dataset as version 2 had it, all images of that (width, height)."""
    index = pq.read_table(folder / INDEX).drop_columns(["is_plain"])
    for name, side in zip(("width", "height"), size or (), strict=False):
        column = pa.repeat(pa.scalar(side, pa.int32()), index.num_rows)
        index = index.set_column(index.schema.get_field_index(name), name, column)
    data = index_bytes(index)
    (folder / INDEX).write_bytes(data)
    manifest = json.loads((folder / MANIFEST).read_text()) | {"version": 2}
    manifest["index"] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    if size:
        sides = dict(zip(("min_width", "min_height", "max_width", "max_height"), size * 2, strict=True))
        manifest["splits"] = {split: info | sides for split, info in manifest["splits"].items()}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return open_dataset(folder)


def samples(dataset: Dataset) -> list[Sample]:
    with closing(RangeReader(locate(dataset.uri))) as ranges:
        reader = SampleReader(dataset, "trainA", ranges, IndexRows(ranges, dataset))
        return reader.read(np.arange(dataset.splits["trainA"].samples))


def pixels(dataset: Dataset) -> list[Tensor]:
    images = [decoded(sample) for sample in samples(dataset)]
    assert not any(isinstance(image, str) for image in images)
    return images  # type: ignore[return-value]


def test_a_packed_dataset_is_read_as_before(tmp_path: Path) -> None:
    now = make_dataset(tmp_path, {"trainA": 4})
    expected = pixels(now)
    earlier = as_version_2(tmp_path / "shards")
    assert all(sample.is_plain for sample in samples(earlier))
    assert all(torch.equal(one, other) for one, other in zip(pixels(earlier), expected, strict=True))
    assert main(["verify", earlier.uri]) == 0
    # Packing the same images again finds them there.
    before = (tmp_path / "shards" / MANIFEST).read_bytes()
    assert main(["pack", str(tmp_path / "images"), earlier.uri]) == 0
    assert (tmp_path / "shards" / MANIFEST).read_bytes() == before


def test_tars_of_others_are_shown_as_a_viewer_shows_them(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with tarfile.open(tmp_path / "trainA-0.tar", "w") as tar:
        for number, options in enumerate([{}, {"exif": exif}]):
            data = io.BytesIO()
            picture(1).save(data, "PNG", **options)
            member = tarfile.TarInfo(f"{number}.png")
            member.size = data.tell()
            tar.addfile(member, io.BytesIO(data.getvalue()))
    assert main(["index", str(tmp_path), "--jobs", "1"]) == 0
    earlier = as_version_2(tmp_path, picture(1).size)
    upright, turned = pixels(earlier)
    assert torch.equal(turned, upright.rot90(-1, (1, 2)))
    assert main(["verify", earlier.uri]) == 0


def test_an_interrupted_pack_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = str(make_folder(tmp_path / "images", {"trainA": 6}))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(packing, "_finish", interrupted)
        assert main(["pack", images, str(tmp_path / "shards"), "--jobs", "1"]) == 130
    (record,) = (tmp_path / "shards" / UNFINISHED).glob("*.parquet")
    earlier = pq.read_table(record)
    pq.write_table(earlier.drop_columns(["is_plain"]), record)
    assert main(["pack", images, str(tmp_path / "shards"), "--jobs", "1"]) == 0
    assert main(["pack", images, str(tmp_path / "anew"), "--jobs", "1"]) == 0
    for path in (tmp_path / "anew").iterdir():
        assert path.read_bytes() == (tmp_path / "shards" / path.name).read_bytes()


def with_a_new_field(value: object) -> object:
    """JSON with another field in each object."""
    if isinstance(value, list):
        return [with_a_new_field(each) for each in value]
    if isinstance(value, dict):
        return {name: with_a_new_field(each) for name, each in value.items()} | {"new": {"a": [1]}}
    return value


def test_fields_of_a_later_version_are_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = make_dataset(tmp_path, {"trainA": 2, "trainB": 2})
    known = open_dataset(dataset.uri)
    there = Path(dataset.uri, MANIFEST)
    splits = with_a_new_field(known.manifest["splits"])
    assert isinstance(splits, dict)
    del splits["new"]
    manifest = with_a_new_field(known.manifest | {"skipped": []})
    assert isinstance(manifest, dict)
    there.write_text(json.dumps(manifest | {"splits": splits}))
    assert open_dataset(dataset.uri).splits == known.splits
    assert main(["inspect", dataset.uri]) == main(["verify", dataset.uri]) == 0
    assert "is sound" in capsys.readouterr().out
