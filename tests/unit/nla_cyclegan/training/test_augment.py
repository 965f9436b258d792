"""Differentiable augmentation, against its definition written out pixel by pixel."""

from typing import get_args

import pytest
import torch
from torch import Tensor

from nla_cyclegan.training.augment import NUMBERS, VIEWS, Augment
from nla_cyclegan.training.config import Augmentation

KINDS = get_args(Augmentation)


def written_out(image: Tensor, numbers: list[float], kinds: tuple[str, ...]) -> Tensor:
    """One image [3, H, W] (Zhao et al. 2020)."""
    _, height, width = image.shape
    bright, saturated, contrast, down, right, hole_y, hole_x = numbers
    if "color" in kinds:
        image = image + (bright - 0.5)
        grey = image.mean(dim=0)
        image = torch.stack([(channel - grey) * (saturated * 2) + grey for channel in image])
        image = (image - image.mean()) * (contrast + 0.5) + image.mean()
    result = image.clone()
    most_y, most_x = int(height / 8 + 0.5), int(width / 8 + 0.5)
    dy, dx = int(down * (2 * most_y + 1)) - most_y, int(right * (2 * most_x + 1)) - most_x
    top, left = int(hole_y * (height + 1)) - height // 4, int(hole_x * (width + 1)) - width // 4
    for y in range(height):
        for x in range(width):
            if "translation" in kinds:
                inside = 0 <= y - dy < height and 0 <= x - dx < width
                result[:, y, x] = image[:, y - dy, x - dx] if inside else 0.0
            if "cutout" in kinds and top <= y < top + height // 2 and left <= x < left + width // 2:
                result[:, y, x] = 0.0
    return result


@pytest.mark.parametrize("kinds", [*((kind,) for kind in KINDS), KINDS])
@pytest.mark.parametrize("size", [(16, 16), (8, 24)])
def test_each_image_is_changed_as_the_paper_says(kinds: tuple[str, ...], size: tuple[int, int]) -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.rand(12, 3, *size, generator=random, dtype=torch.float64) * 2 - 1
    numbers = torch.rand(12, NUMBERS, generator=random)
    # The ends of all ranges.
    numbers[0], numbers[1] = 0.0, 1 - 2**-24
    changed = Augment(kinds)(images, numbers)
    for image, row, got in zip(images, numbers, changed, strict=True):
        torch.testing.assert_close(got, written_out(image, row.tolist(), kinds), rtol=0, atol=1e-7)
    assert not torch.equal(changed, images)


@pytest.mark.parametrize("kinds", [*((kind,) for kind in KINDS), KINDS])
def test_gradients_pass_through(kinds: tuple[str, ...]) -> None:
    random = torch.Generator().manual_seed(1)
    images = torch.rand(2, 3, 8, 8, generator=random, dtype=torch.float64, requires_grad=True)
    numbers = torch.rand(2, NUMBERS, generator=random)
    assert torch.autograd.gradcheck(lambda images: Augment(kinds)(images, numbers), images)


def test_what_is_off_draws_nothing() -> None:
    random = torch.Generator().manual_seed(1)
    before = random.get_state()
    assert Augment(()).draw(4, random) == []
    assert torch.equal(random.get_state(), before)
    (numbers,) = Augment(KINDS).draw(4, random)
    assert numbers.shape == (4, VIEWS, NUMBERS)
