import errno
import re
import struct
import zlib
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

from data_shards.errors import UserError
from data_shards.images.decode import open as opening
from data_shards.images.read import decoded, image_size, load_image, reduced
from data_shards.images.transforms import augment, decode_plain, load_whole, resize
from data_shards.images.write import encoded, save_image


def ramp(height, width):
    values = np.arange(height * width * 3, dtype=np.int64).reshape(height, width, 3) * 7 % 256
    return values.astype(np.uint8)


def pixels(path):
    return load_image(path).permute(1, 2, 0).numpy()


def test_plain_rgb_comes_out_as_it_is(tmp_path):
    Image.fromarray(ramp(5, 9)).save(tmp_path / "a b.png")
    assert np.array_equal(pixels(tmp_path / "a b.png"), ramp(5, 9))
    assert image_size(tmp_path / "a b.png") == (5, 9)


def test_exif_orientation_is_applied_to_pixels_and_size(tmp_path):
    image = Image.fromarray(ramp(4, 10))
    exif = image.getexif()
    exif[0x0112] = 6  # shown turned clockwise by a quarter
    image.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(pixels(tmp_path / "turned.png"), np.rot90(ramp(4, 10), k=-1))
    assert image_size(tmp_path / "turned.png") == (10, 4)


def test_alpha_is_laid_over_white(tmp_path):
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, :] = [(200, 0, 0, 255), (200, 0, 0, 0), (0, 0, 0, 128)]
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    assert pixels(tmp_path / "alpha.png")[0].tolist() == [[200, 0, 0], [255, 255, 255], [127, 127, 127]]


def test_palette_with_a_transparent_entry(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "palette.png", transparency=1)
    assert pixels(tmp_path / "palette.png")[0].tolist() == [[10, 20, 30], [255, 255, 255]]


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_16_bits_are_scaled_not_clipped(tmp_path, name):
    Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16)).save(tmp_path / name)
    assert pixels(tmp_path / name)[0, :, 1].tolist() == [0, 100, 255]


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_tiff_whose_zeros_are_white(tmp_path, depth):
    """Scanners write them; Pillow's own reader inverts those of 8 bits alone."""
    most = np.iinfo(depth).max
    black_is_zero = np.array([[0, most // 255 * 100, most]], depth)
    stored = black_is_zero if depth == np.uint8 else most - black_is_zero
    Image.fromarray(stored).save(tmp_path / "scan.tif", tiffinfo={262: 0})
    assert pixels(tmp_path / "scan.tif")[0, :, 1].tolist() == [0, 100, 255]


@pytest.mark.parametrize(
    ("mode", "value", "shown"), [("L", 77, (77,) * 3), ("1", 1, (255,) * 3), ("LA", (9, 255), (9,) * 3)]
)
def test_grey_and_bilevel(tmp_path, mode, value, shown):
    Image.new(mode, (3, 2), value).save(tmp_path / "grey.png")
    assert tuple(pixels(tmp_path / "grey.png")[1, 2]) == shown


def test_cmyk(tmp_path):
    Image.new("CMYK", (2, 2), (0, 255, 255, 0)).save(tmp_path / "ink.tif")
    assert pixels(tmp_path / "ink.tif")[0, 0].tolist() == [255, 0, 0]


def test_what_cannot_be_shown_is_named(tmp_path):
    whole = tmp_path / "whole.png"
    Image.fromarray(ramp(40, 40)).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:-300])
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(UserError, match=r"cut\.png: not a readable image"):
        load_image(tmp_path / "cut.png")
    with pytest.raises(UserError, match=r"text\.jpg: not a readable image"):
        image_size(tmp_path / "text.jpg")
    with pytest.raises(UserError, match=r"gone\.png: no such file"):
        load_image(tmp_path / "gone.png")


def test_resizing_by_the_shorter_side_and_to_a_square(tmp_path):
    Image.fromarray(ramp(20, 50)).save(tmp_path / "wide.png")
    assert load_image(tmp_path / "wide.png", shorter=10).shape == (3, 10, 25)
    square = load_whole(tmp_path / "wide.png", 20)
    assert torch.equal(square, resize(load_image(tmp_path / "wide.png"), 20, 20))


def test_a_whole_image_is_as_the_stream_crops_it(tmp_path):
    Image.fromarray(ramp(20, 50)).save(tmp_path / "wide.jpg")
    crop = augment(
        decode_plain((tmp_path / "wide.jpg").read_bytes()),
        load_size=16, crop_size=16, flip=False, seed=0, domain=0, position=0,
    )  # fmt: skip
    assert torch.equal(load_whole(tmp_path / "wide.jpg", 16), crop)
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "wide.jpg").read_bytes()[:-20])
    with pytest.raises(UserError, match=r"cut\.jpg: not a readable image"):
        load_whole(tmp_path / "cut.jpg", 16)
    with pytest.raises(UserError, match=r"gone\.png: no such file"):
        load_whole(tmp_path / "gone.png", 16)


@pytest.mark.parametrize(("side", "bits"), [(8, 0), (8, 5), (8, 12), (8, 13), (1600, 8)])
def test_16_bits_that_hold_12_or_labels_are_told(tmp_path, caplog, side, bits):
    Image.fromarray(np.full((2, side), 2**bits - 1, np.uint16 if bits != 8 else np.uint8)).save(tmp_path / "x.png")
    pixels(tmp_path / "x.png")
    assert ["a 16-bit image is nearly black" in line for line in caplog.messages] == [True] * (bits in (5, 12))


@pytest.mark.parametrize("width", [160, 161])
def test_the_colour_that_is_transparent_in_8_bits_is_taken_whole(tmp_path, width):
    """The width stood for the depth: of a PNG with 16 in its width another colour became transparent."""
    image = Image.new("RGB", (width, 2), (255, 0, 0))
    image.putpixel((0, 0), (0, 0, 0))
    image.save(tmp_path / "key.png", transparency=(255, 0, 0))
    assert pixels(tmp_path / "key.png")[0, :2].tolist() == [[0, 0, 0], [255, 255, 255]]


def test_colour_of_16_bits(tmp_path):
    """Pillow cannot write it: a PNG by hand (colour type 2, 16 bits)."""
    row = b"\0" + struct.pack(">6H", 65535, 257 * 100, 0, 0, 255, 65535)
    chunks = {b"IHDR": struct.pack(">2I5B", 2, 1, 16, 2, 0, 0, 0), b"IDAT": zlib.compress(row), b"IEND": b""}
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert pixels(tmp_path / "deep.png")[0].tolist() == [[255, 100, 0], [0, 0, 255]]


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lacks_its_end_mark_alone_is_read(tmp_path, progressive):
    Image.effect_noise((40, 24), 80).convert("RGB").save(tmp_path / "whole.jpg", progressive=progressive)
    content = (tmp_path / "whole.jpg").read_bytes()
    for lacking in (1, 2):
        (tmp_path / "a.jpg").write_bytes(content[:-lacking])
        assert torch.equal(load_image(tmp_path / "a.jpg"), load_image(tmp_path / "whole.jpg"))
    for lacking in (40, 400):
        (tmp_path / "a.jpg").write_bytes(content[:-lacking])
        with pytest.raises(UserError, match=r"a\.jpg: not a readable image \(OSError: image file is truncated"):
            load_image(tmp_path / "a.jpg")


def test_a_jpeg_that_ends_with_one_of_its_scans_is_cut_short(tmp_path):
    Image.effect_noise((40, 24), 80).convert("RGB").save(tmp_path / "whole.jpg", progressive=True)
    content = (tmp_path / "whole.jpg").read_bytes()
    # The tables before a scan are its own.
    ends = [match.start() for match in re.finditer(rb"(\xff\xc4..[^\xff]*)*\xff\xda", content, re.DOTALL)]
    assert len(ends) > 5
    for end in ends[1:]:
        (tmp_path / "a.jpg").write_bytes(content[:end])
        with pytest.raises(UserError, match="image file is truncated"):
            load_image(tmp_path / "a.jpg")


def test_a_strip_is_not_enlarged(tmp_path):
    for name, size in {"line": (650, 10), "bar": (640, 10)}.items():
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    assert image_size(tmp_path / "bar.png", shorter=20) == load_image(tmp_path / "bar.png", shorter=20).shape[1:]
    assert load_image(tmp_path / "line.png", shorter=5).shape == (3, 5, 325)
    for read in (load_image, image_size):
        with pytest.raises(
            UserError, match=r"line\.png: .*a strip of 650 x 10 px, which would be enlarged to 1,300 x 20"
        ):
            read(tmp_path / "line.png", shorter=20)


def test_only_larger_images_are_reduced():
    image = torch.from_numpy(ramp(40, 90)).permute(2, 0, 1)
    assert reduced(image, 3600) is image
    assert reduced(image, 900).shape == (3, 20, 45)
    assert reduced(torch.zeros((3, 1, 900), dtype=torch.uint8), 10).shape == (3, 1, 94)


def test_written_whole_or_not_at_all(tmp_path):
    image = torch.from_numpy(ramp(6, 7)).permute(2, 0, 1)
    save_image(image, tmp_path / "new" / "a.png")
    assert torch.equal(load_image(tmp_path / "new" / "a.png"), image)
    with pytest.raises(UserError, match=r"a\.nonsense: cannot be written"):
        save_image(image, tmp_path / "new" / "a.nonsense")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def test_a_jpeg_is_written_without_chroma_subsampling(tmp_path):
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    image[0, :, ::2] = image[2, :, 1::2] = 200
    save_image(image, tmp_path / "a.jpg")
    for source in (tmp_path / "a.jpg", encoded(image, ".jpg")):
        # At 4:2:0 it is 70.
        assert (decoded(source).int() - image.int()).abs().float().mean() < 3


def test_panoramas_are_read_as_long_as_they_fit_into_memory(tmp_path, monkeypatch):
    """Pillow's own limit would refuse it."""
    Image.new("1", (20_000, 10_000)).save(tmp_path / "wide.png")
    assert image_size(tmp_path / "wide.png") == (10_000, 20_000)
    monkeypatch.setattr(opening, "available_bytes", lambda: 10**9)
    with pytest.raises(
        UserError, match=r"wide.png.*20,000 x 10,000 px take about 2.4 GB of memory, and 1.0 GB are available"
    ):
        load_image(tmp_path / "wide.png")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (
            b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99),
            "a HEIC photo, which Pillow does not read here: convert it",
        ),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99), "a JPEG XL image, which Pillow does not read: convert it"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(99), "a raw photo or a TIFF of a rare kind"),
        (b"\n<!DOCTYPE html><p>404", "a web page or XML: download the file again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS: .* `git lfs pull`"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "a document or a drawing"),
        (b"PK\3\4" + bytes(99), "an archive, or compressed, which Pillow does not read: unpack it"),
        (bytes(128) + b"DICM" + bytes(99), "a DICOM file, which Pillow does not read: convert it"),
        (b"\x93NUMPY\1\0", "an array, which Pillow does not read: convert it"),
        (b"#?RADIANCE\n", "an image of high dynamic range, which Pillow does not read: convert it"),
        (bytes(2000), "zeros where an image begins"),
        (b"\xff\xd8\xff" + bytes(20), "an image with a damaged header"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "(an image with a damaged header|the checksum of its data is wrong)"),
        (b"plain text", "not an image file that Pillow reads"),
    ],
)
def test_what_a_file_is_instead_of_an_image(tmp_path, content, said):
    (tmp_path / "photo.jpg").write_bytes(content)
    for read in (load_image, image_size):
        with pytest.raises(UserError, match=rf"photo\.jpg: not a readable image \({said}"):
            read(tmp_path / "photo.jpg")


def test_a_file_that_cannot_be_mapped_into_memory_is_read(tmp_path, monkeypatch):
    Image.fromarray(ramp(20, 50)).save(tmp_path / "far.png")
    expected = load_image(tmp_path / "far.png")
    monkeypatch.setattr("mmap.mmap", Mock(side_effect=OSError(errno.ENODEV, "No such device")))
    assert torch.equal(load_image(tmp_path / "far.png"), expected)
