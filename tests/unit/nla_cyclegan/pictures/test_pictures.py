import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nla_cyclegan import Generator, GeneratorConfig
from nla_cyclegan.inference.images import attention_maps, translate_images
from nla_cyclegan.pictures.grids import comparison_row, picture_grid, translate_both_ways
from nla_cyclegan.pictures.overlay import attention_overlay, fit, salient_point
from nla_cyclegan.pixels import to_float


def flat(height, width, value=128):
    return torch.full((3, height, width), value, dtype=torch.uint8)


def noise(height, width):
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, height, width), generator=random, dtype=torch.uint8)


def generators(nonlocal_blocks, output="image"):
    torch.manual_seed(0)
    config = GeneratorConfig(
        base_channels=2, num_blocks=3, nonlocal_blocks=nonlocal_blocks, nonlocal_gain=1.0, output=output
    )
    return Generator(config).eval(), Generator(config).eval()


def test_a_row_goes_there_and_back_again():
    there, back = generators((1,))
    photo, truth = noise(16, 22), noise(10, 10)
    row = translate_both_ways(there, back, photo, "B2A").row(truth)
    assert list(row) == ["photo", "painted", "back again", "attention", "true painting"]
    painted = translate_images(there, photo[None])
    assert torch.equal(row["photo"], photo)
    assert torch.equal(row["painted"], painted[0])
    assert torch.equal(row["back again"], translate_images(back, painted)[0])
    assert torch.equal(row["true painting"], truth)
    point = (8, 16)
    expected = attention_overlay(photo, attention_maps(there, photo, point)[1], point)
    assert torch.equal(translate_both_ways(there, back, photo, "B2A", (0.75, 0.5)).row()["attention"], expected)


@pytest.mark.parametrize(("blocks", "columns"), [((), []), ((0, 2), ["attention, block 0", "attention, block 2"])])
def test_attention_columns_follow_the_nonlocal_blocks(blocks, columns):
    row = translate_both_ways(*generators(blocks), noise(16, 16), "A2B").row()
    assert list(row) == ["painting", "as a photo", "back again", *columns]


def test_a_masked_output_shows_its_mask_in_grey():
    there, back = generators((), "masked")
    photo = noise(14, 22)
    row = translate_both_ways(there, back, photo, "B2A").row()
    assert list(row) == ["photo", "painted", "back again", "mask (white: painted)"]
    # Padded to what the network takes, and cropped back.
    mask = there.translate(to_float(F.pad(photo[None].float(), (0, 2, 0, 2), mode="reflect")))[1][0, 0, :14, :22]
    assert torch.equal(row["mask (white: painted)"], (mask * 255).round().to(torch.uint8).expand(3, -1, -1))
    with torch.no_grad():
        there.decoder[-1].bias[3] = -1e3
    row = translate_both_ways(there, back, photo, "B2A").row()
    assert torch.equal(row["painted"], photo)
    assert row["mask (white: painted)"].max() == 0
    plain = generators(())[0]
    assert list(comparison_row({"one": plain, "two": there}, photo, "B2A")) == [
        "photo",
        "one",
        "two",
        "mask, two (white: painted)",
    ]


def test_a_comparison_shows_each_generator_then_where_each_looks_from_one_point():
    plain, local = generators(())[0], generators((0, 2))[0]
    photo = noise(16, 22)
    row = comparison_row({"CycleGAN": plain, "NLA": local}, photo, "B2A")
    assert list(row) == ["photo", "CycleGAN", "NLA", "attention, NLA, block 0", "attention, NLA, block 2"]
    assert torch.equal(row["NLA"], translate_images(local, photo[None])[0])
    point = salient_point(photo)
    expected = attention_overlay(photo, attention_maps(local, photo, point)[2], point)
    assert torch.equal(row["attention, NLA, block 2"], expected)
    assert list(comparison_row({"one": plain, "two": plain}, photo, "A2B")) == ["painting", "one", "two"]
    assert list(comparison_row({"one": generators((1,))[0], "two": plain}, photo, "A2B"))[3:] == ["attention, one"]


def ink(picture):
    """Columns of the picture that are not white."""
    return (np.asarray(picture).min(axis=(0, 2)) < 255).nonzero()[0]


@pytest.mark.parametrize(
    "heading", ["attention, run-with-a-long-name-lr-0.0002-seed-3, block 4", "W" * 60, "many words " * 8]
)
def test_headings_stay_over_their_columns(heading):
    white = flat(64, 64, 255)
    grid = picture_grid([{"photo": white, heading: white, "last": white}])
    one_line = picture_grid([{"photo": white, "painted": white, "last": white}])
    extra = grid.height - one_line.height
    assert 0 < extra <= 7 * 22, "full lines"
    assert extra % 22 == 0
    columns = ink(grid.crop((20 + 256, 0, 20 + 2 * 266, grid.height)))
    assert columns.min() >= 10
    assert columns.max() < 266
    # The other headings stand on the lowest line, as if alone.
    for left in (20, 20 + 2 * 266):
        box, moved = (left, 0, left + 256, one_line.height), (left, extra, left + 256, grid.height)
        assert np.array_equal(np.asarray(grid.crop(moved)), np.asarray(one_line.crop(box)))


def test_a_note_stands_below_within_the_width():
    white = flat(64, 64, 255)
    without, noted = picture_grid([{"photo": white}]), picture_grid([{"photo": white}], "some words to explain it " * 4)
    assert noted.width == without.width
    below = noted.crop((0, without.height - 20, noted.width, noted.height))
    assert 20 <= ink(below).min() <= ink(below).max() < 276
    assert np.asarray(below)[-5:].min() == 255


def test_the_corners_of_an_image_can_be_marked():
    there, back = generators((1,))
    for corner in [(0.0, 0.0), (1.0, 1.0)]:
        assert "attention" in translate_both_ways(there, back, noise(18, 13), "B2A", corner).row()


def test_cells_lie_under_their_headings_and_missing_ones_stay_white():
    red, blue = flat(128, 128, 0), flat(64, 32, 0)
    red[0], blue[2] = 200, 200
    grid = np.asarray(picture_grid([{"one": red, "two": red}, {"two": blue}]))
    height, width = grid.shape[:2]
    ones, twos = grid[height // 4 + 20], grid[-20 - 128]
    assert width == 20 + 256 + 10 + 256 + 20
    assert ones[20 + 128].tolist() == [200, 0, 0]
    assert ones[20 + 266 + 128].tolist() == [200, 0, 0]
    assert ones[20 + 261].tolist() == [255] * 3
    assert twos[20 + 128].tolist() == [255] * 3
    assert twos[20 + 266 + 128].tolist() == [0, 0, 200]
    # A tall image keeps its aspect: half as wide as its cell, in the middle.
    assert twos[20 + 266 + 50].tolist() == [255] * 3
    headings = grid[:60]
    assert headings[:, 20:276].min() < 100
    assert headings[:, 286:542].min() < 100


def test_fitting_keeps_the_aspect():
    assert fit(flat(64, 128)).size == (256, 128)
    assert fit(flat(600, 300)).size == (128, 256)
    assert fit(flat(256, 1000)).size == (256, 66)


def test_heat_is_where_the_weights_are_and_the_point_is_ringed():
    weights = torch.zeros(8, 8)
    weights[6, 1] = 1.0
    overlay = attention_overlay(flat(32, 32), weights, (4, 27)).float()
    heat = overlay.mean(dim=0)
    heat[:80, 176:] = 0  # the ring is white
    row, column = divmod(int(heat.argmax()), 256)
    assert abs(row - 6.5 * 32) <= 16
    assert abs(column - 1.5 * 32) <= 16
    ring = overlay[:, :80, 176:]
    assert (ring == 255).all(dim=0).any()
    assert (overlay[:, 100:150, 100:150].std(dim=(1, 2)) == 0).all()


def test_an_even_map_shows_no_heat():
    overlay = attention_overlay(flat(32, 32), torch.full((8, 8), 1 / 64), (4, 4))
    assert overlay[:, 100:, 100:].float().std(dim=(1, 2)).max() == 0


def test_the_salient_point_is_structured_and_near_the_centre():
    image = flat(60, 80)
    image[:, 34:42, 44:52] = noise(8, 8)
    row, column = salient_point(image)
    assert 34 <= row < 42
    assert 44 <= column < 52
    image[:, :8, :8] = noise(8, 8)
    assert salient_point(image) == (row, column)
