import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_folders import picture
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional as F

from data_shards.dataset.epoch_plan import AUGMENTATION, draws
from data_shards.images.decode import library
from data_shards.images.decode.open import UnreadableImageError
from data_shards.images.fit import Fit
from data_shards.images.transforms import augment, decode, decode_plain, decode_stored, resize, whole

SIZES = {"load_size": 40, "crop_size": 32}


def tensor(image: Image.Image) -> Tensor:
    return F.pil_to_tensor(image)


def augmented(
    position: int, image: Tensor | None = None, *, flip: bool = True, seed: int = 5, domain: int = 0
) -> Tensor:
    image = tensor(picture(1)) if image is None else image
    return augment(image, **SIZES, flip=flip, seed=seed, domain=domain, position=position)


def file_of(image: Image.Image, file_format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_lossless_files_come_back_exactly(file_format: str) -> None:
    image = picture(3)
    data = file_of(image, file_format, **({"lossless": True} if file_format == "WEBP" else {}))
    assert torch.equal(decode(data), tensor(image))


@pytest.mark.parametrize("options", [{"quality": 90}, {"quality": 75, "progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_plain_file_decodes_to_the_same_pixels_either_way(mode: str, options: dict[str, Any]) -> None:
    for file_format in ("JPEG", "PNG"):
        data = file_of(picture(3).convert(mode), file_format, **options)
        # Not exactly, because Pillow and torchvision bring a libjpeg each.
        assert (decode(data).int() - decode_plain(data).int()).abs().max() <= (2 if file_format == "JPEG" else 0)


def test_a_plain_file_decodes_as_by_the_whole_of_torchvision() -> None:
    data = file_of(picture(3), "JPEG", quality=90)
    raw = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    assert torch.equal(decode_plain(data), decode_image(raw, ImageReadMode.RGB))


@pytest.mark.parametrize("damaged", [False, True])
def test_torchvision_is_imported_where_its_decoder_does_not_load_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    for name in ("torchvision", "torchvision/image.so") if damaged else ():
        (tmp_path / name).mkdir() if name == "torchvision" else (tmp_path / name).write_bytes(b"no library")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    raw = torch.frombuffer(bytearray(file_of(picture(3), "PNG")), dtype=torch.uint8)
    assert torch.equal(library.decoder.__wrapped__()(raw, library.RGB), tensor(picture(3)))


def test_resizing_gives_torchvisions_pixels() -> None:
    for image in (tensor(picture(1, 97, 60)), decode(file_of(picture(2, 50, 81), "PNG"))):
        for size in [(40, 40), (120, 33), (61, 97)]:
            assert torch.equal(resize(image, *size), F.resize(image, list(size), antialias=True))


def test_16_bits_are_scaled_to_8() -> None:
    grey = Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16))
    assert decode(file_of(grey, "PNG"))[:, 0].tolist() == [[0, 100, 255]] * 3


def test_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue")]
    decoded = decode(file_of(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert torch.equal(decoded, tensor(frames[0]))


def test_a_truncated_file_does_not_decode() -> None:
    for read in (decode, decode_plain):
        for cut in (0, 200):
            with pytest.raises(UnreadableImageError):
                read(file_of(picture(3), "PNG")[:cut])


def test_augmentation_is_a_function_of_seed_domain_and_position() -> None:
    first = augmented(11)
    torch.manual_seed(1)
    assert torch.equal(first, augmented(11))
    others = [augmented(12), augmented(11, seed=6), augmented(11, domain=1)]
    assert not any(torch.equal(first, other) for other in others)


def test_augmentation_resizes_then_crops_and_mirrors() -> None:
    image = tensor(picture(1))
    resized = F.resize(image, [40, 40], antialias=True)
    windows = {
        crop.numpy().tobytes(): (top, left, mirrored)
        for top in range(9)
        for left in range(9)
        for mirrored in (False, True)
        for crop in [resized[:, top : top + 32, left : left + 32]]
        for crop in [crop.flip(-1) if mirrored else crop]
    }
    seen = [windows[augmented(position).numpy().tobytes()] for position in range(300)]
    # Every row, column and direction occurs, and half are mirrored.
    assert {top for top, _, _ in seen} == {left for _, left, _ in seen} == set(range(9))
    assert 110 < sum(mirrored for _, _, mirrored in seen) < 190


@pytest.mark.parametrize(
    ("fit", "height", "width", "loaded"),
    [
        ("keep", 30, 90, (40, 120)),
        ("keep", 48, 40, (48, 40)),
        ("crop", 30, 90, (40, 40)),
        ("keep", 40, 9000, (40, 2560)),
    ],
)
def test_proportions_are_kept(fit: Fit, height: int, width: int, loaded: tuple[int, int]) -> None:
    # Rows and columns of the middle, at most 64 to 1, as they are numbered after the resize: a crop shows where it came from.
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0)).mul(255).to(torch.uint8)
    middle = image[:, :, (width - min(width, 64 * height)) // 2 :][:, :, : 64 * height]
    scale = 40 / min(height, width)
    resized = resize(middle, round(height * scale), round(middle.shape[2] * scale))
    if fit == "crop":
        resized = resized[:, :, 40:80]
    assert resized.shape[1:] == loaded
    seen = set()
    for position in range(200):
        crop = augment(image, **SIZES, fit=fit, flip=False, seed=5, domain=0, position=position)
        top, left = (
            int(value) % (side - 31)
            for value, side in zip(draws(3, AUGMENTATION, 5, 0, position), loaded, strict=False)
        )
        assert torch.equal(crop, resized[:, top : top + 32, left : left + 32])
        seen.add((top, left))
    assert {top for top, _ in seen} == set(range(loaded[0] - 31))
    assert max(left for _, left in seen) > 0.97 * (loaded[1] - 32)


@pytest.mark.parametrize(
    ("fit", "height", "width", "size"),
    [("stretch", 30, 90, (36, 36)), ("crop", 30, 90, (36, 36)), ("keep", 30, 90, (36, 108)), ("keep", 50, 49, (36, 36)),
     ("keep", 97, 40, (84, 36)), ("keep", 10, 5000, (36, 144)), ("keep", 1, 1, (36, 36))],
)  # fmt: skip
def test_whole_images_fit_a_size(fit: Fit, height: int, width: int, size: tuple[int, int]) -> None:
    image = torch.arange(height * width).reshape(height, width).to(torch.uint8).expand(3, -1, -1)
    fitted = whole(image, 36, fit)
    assert fitted.shape == (3, *size)
    kept = image[:, :, (width - 4 * height) // 2 :][:, :, : 4 * height] if width > 4 * height else image
    assert fit == "crop" or torch.equal(fitted, resize(kept, *size))


def test_nothing_is_mirrored_unless_asked() -> None:
    image = torch.arange(40).expand(3, 40, 40).to(torch.uint8)
    crops = [augmented(position, image, flip=False) for position in range(50)]
    assert all((crop.diff(dim=-1) == 1).all() for crop in crops)


def test_an_image_that_needs_no_change_keeps_its_pixels() -> None:
    image = tensor(picture(1, 32, 32))
    same = augment(image, load_size=32, crop_size=32, flip=False, seed=0, domain=0, position=0)
    assert torch.equal(same, image)
    assert torch.equal(whole(image, 32, "crop"), image)


@pytest.mark.parametrize(("width", "height"), [(48, 40), (30, 100), (33, 32), (500, 31)])
def test_the_centre_keeps_the_proportions(width: int, height: int) -> None:
    ramp = torch.arange(width).mul(255).div(width - 1).expand(3, height, width).to(torch.uint8)
    middle = whole(ramp, 32, "crop")
    assert middle.shape == (3, 32, 32)
    assert abs(middle.float().mean() - ramp.float().mean()) < 5
    slope = 255 / (width - 1) * min(width, height) / 32
    assert middle[0, 16].float().diff()[4:-4].mean() == pytest.approx(slope, rel=0.15, abs=0.3)


def test_a_jpeg_without_an_end_mark_is_streamed_as_it_is_shown() -> None:
    data = file_of(picture(3), "JPEG", quality=95)[:-2] + bytes(64)
    with pytest.raises(UnreadableImageError):
        decode_plain(data)
    assert torch.equal(decode_stored(data, is_plain=True), decode(data))
