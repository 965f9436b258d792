"""Metadata that are damaged cost no picture."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from data_shards.checking.headers import look_at
from data_shards.images.encode import Encoding, encode_file
from data_shards.images.read import image_size, load_image


def ramp(height, width):
    values = np.arange(height * width * 3, dtype=np.int64).reshape(height, width, 3) * 7 % 256
    return values.astype(np.uint8)


def pixels(path):
    return load_image(path).permute(1, 2, 0).numpy()


def chunk(kind, content, checksum=None):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum or zlib.crc32(kind + content))


@pytest.mark.parametrize("place", ["IDAT", "IEND"])
@pytest.mark.parametrize(
    "damaged",
    [
        chunk(b"tEXt", b"Comment\0x", checksum=1), chunk(b"pHYs", b"\0"), chunk(b"gAMA", b""), chunk(b"iCCP", b"junk"),
        chunk(b"zTXt", b"k\0\1x"), chunk(b"eXIf", b"junk", checksum=1), chunk(b"iTXt", b"k"), chunk(b"cHRM", b"12"),
        chunk(b"tIME", b""), chunk(b"acTL", b""), chunk(b"prVt", b"whatever", checksum=1),
    ],
)  # fmt: skip
def test_damaged_metadata_of_a_png_cost_no_picture(tmp_path, place, damaged):
    Image.fromarray(ramp(20, 30)).save(tmp_path / "image.png")
    whole = (tmp_path / "image.png").read_bytes()
    at = whole.index(place.encode()) - 4
    (tmp_path / "image.png").write_bytes(whole[:at] + damaged + whole[at:])
    assert image_size(tmp_path / "image.png") == (20, 30)
    assert (pixels(tmp_path / "image.png") == ramp(20, 30)).all()
    assert look_at((tmp_path / "image.png").read_bytes()).fault == ""
    assert encode_file(tmp_path / "image.png", Encoding()).fault == ""


@pytest.mark.parametrize(
    "segment",
    [
        b"\xff\xe0\0\x06JFIF", b"\xff\xe0\0\x09JFIF\0\1\1", b"\xff\xe2\0\x08MPF\0II", b"\xff\xed\0\x08Photos", b"\xff\xee\0\x07Adobe",
        b"\xff\xe2\0\x0fICC_PROFILE\0\1", b"\xff\xe1\0\x08Exif\0\0", b"\xff\xe1\0\x0aExif\0\0II", b"\xff\xfe\0\x03\xff",
    ],
)  # fmt: skip
def test_damaged_metadata_of_a_jpeg_cost_no_picture(tmp_path, segment):
    Image.fromarray(ramp(20, 30)).save(tmp_path / "image.jpg", quality=95)
    whole, expected = (tmp_path / "image.jpg").read_bytes(), pixels(tmp_path / "image.jpg")
    (tmp_path / "image.jpg").write_bytes(whole[:2] + segment + whole[2:])
    assert image_size(tmp_path / "image.jpg") == (20, 30)
    assert (pixels(tmp_path / "image.jpg") == expected).all()
    assert look_at((tmp_path / "image.jpg").read_bytes()).fault == ""
    assert encode_file(tmp_path / "image.jpg", Encoding()).fault == ""
