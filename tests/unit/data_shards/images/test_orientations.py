"""The eight orientations, and two that are none, in every format that states one: header, reader and packer agree."""

import io
from pathlib import Path

import numpy as np
import pytest
from image_folders import picture
from PIL import Image, features

from data_shards.checking.headers import look_at
from data_shards.images.decode.orientation import ORIENTATION, UPRIGHT
from data_shards.images.encode import Encoding, encode_file
from data_shards.images.read import image_size, load_image

FORMATS = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "MPO": {"quality": 95, "subsampling": 0, "save_all": True},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "TIFF lzw": {"compression": "tiff_lzw"},
    "TIFF jpeg": {"compression": "jpeg", "quality": 95},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
}


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("name", FORMATS)
def test_an_image_has_one_size_whoever_asks(tmp_path: Path, name: str, orientation: int) -> None:
    if name == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    if name.startswith("TIFF ") and not 1 <= orientation <= 8:
        pytest.skip("libtiff does not write it")
    stored = picture(3, 60, 40)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / "image"
    stored.save(path, name.split()[0], exif=exif, **FORMATS[name])
    with Image.open(path) as image:
        flat = np.asarray(image.convert("RGB"))
    # Pillow turns a TIFF by itself.
    expected = Image.fromarray(flat) if name.startswith("TIFF") else stored
    if not name.startswith("TIFF") and orientation in UPRIGHT:
        expected = stored.transpose(UPRIGHT[orientation])

    pixels = load_image(path).permute(1, 2, 0).numpy()
    assert image_size(path) == pixels.shape[:2] == (expected.height, expected.width)
    assert np.abs(pixels.astype(int) - np.asarray(expected).astype(int)).mean() < 6
    packed = encode_file(path, Encoding())
    assert packed.fault == ""
    assert (packed.width, packed.height) == expected.size
    with Image.open(io.BytesIO(packed.data)) as image:
        assert image.size == expected.size
        assert np.abs(np.asarray(image).astype(int) - pixels).mean() < 6
    header = look_at(path.read_bytes())
    assert header.fault == ""
    assert (header.width, header.height) == expected.size
