"""Tiles, judged by the untiled translation."""

import pytest
import torch
from torch.nn import functional as F

from nla_cyclegan import Generator, GeneratorConfig
from nla_cyclegan.inference.images import translate_images
from nla_cyclegan.inference.tiles import margin, sample_crops, share_statistics, tile_windows, translate_tiles

CONFIG = GeneratorConfig(base_channels=4, num_blocks=2, nonlocal_blocks=(1,), nonlocal_gain=1.0)
CONFIGS = {
    "paper": CONFIG,
    "plain": CONFIG.model_copy(update={"nonlocal_blocks": ()}),
    "resize": CONFIG.model_copy(update={"upsample": "resize"}),
    "resize, group": CONFIG.model_copy(update={"upsample": "resize", "norm": "group"}),
    "pooled": CONFIG.model_copy(update={"nonlocal_pooled": True}),
    "masked": CONFIG.model_copy(update={"output": "masked", "nonlocal_gain": "fixed"}),
}


def generator(config=CONFIG):
    torch.manual_seed(0)
    return Generator(config).eval()


def smoothing():
    """Positive kernels: bright stays bright, by the measure of the norms' statistics, and edges are soft."""
    net = generator(CONFIGS["resize"])
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.abs_()
        # Far from where tanh is flat.
        net.decoder[-2].weight.mul_(0.03)
    return net


def landscape(height, width):
    """Dark and flat on the left, bright and rough on the right: tiles left to themselves differ in mean and contrast."""
    random = torch.Generator().manual_seed(0)
    across = torch.linspace(0, 1, width)
    rough = torch.randn((3, height, width), generator=random) * 30 * across
    soft = F.interpolate(torch.randn((1, 3, 9, 12), generator=random), (height, width), mode="bicubic")[0] * 20
    return (30 + 190 * across + rough + soft).clamp(0, 255).to(torch.uint8)


@torch.inference_mode()
def untiled(net, image):
    return translate_images(net, image[None])[0]


def seam(image, cuts):
    """Gradient energy across the cuts of columns over that of the 16 columns around each; 1 is no seam.

    Of the rows' mean: a seam runs along all rows, texture does not.
    """
    row = image.float().mean(dim=1)
    energy = (row[:, 1:] - row[:, :-1]).square().mean(0)
    around = [torch.cat((energy[cut - 9 : cut - 1], energy[cut : cut + 8])).mean() for cut in cuts]
    return (energy[[cut - 1 for cut in cuts]].mean() / torch.stack(around).mean()).item()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_with_the_statistics_of_the_whole_image_tiles_are_exact(config):
    """The network in double precision: what is left of a difference is a wrong margin or a wrong cut."""
    net = generator(config).double()
    image = torch.rand(1, 3, 180, 232, dtype=torch.double) * 2 - 1
    with torch.inference_mode():
        expected = net(image)
        shared = share_statistics(net, image)
        torch.testing.assert_close(shared(image), expected, rtol=0, atol=1e-10)
        reach = margin(config)
        for down in tile_windows(180, 96, reach):
            for across in tile_windows(232, 96, reach):
                tile = shared(image[:, :, down.start : down.stop, across.start : across.stop])
                top, left = down.keep_start - down.start, across.keep_start - across.start
                kept = expected[:, :, down.keep_start : down.keep_stop, across.keep_start : across.keep_stop]
                found = tile[:, :, top : top + kept.shape[2], left : left + kept.shape[3]]
                torch.testing.assert_close(found, kept, rtol=0, atol=1e-10)


def test_the_margin_is_no_wider_than_it_must_be():
    config = CONFIGS["resize, group"]
    net = generator(config).double()
    image = torch.rand(1, 3, 96, 200, dtype=torch.double) * 2 - 1
    reach = margin(config)
    with torch.inference_mode():
        shared = share_statistics(net, image)
        whole, cut = shared(image), shared(image[..., :160])
    differs = (whole[..., :160] - cut).abs().amax((0, 1, 2)) > 1e-10
    assert not differs[: 160 - reach].any()
    assert differs[160 - reach : 160 - reach + 12].any()


def test_tiles_join_without_a_seam_where_tiles_on_their_own_do_not():
    net, image = smoothing(), landscape(192, 480)
    tile = 128
    windows = tile_windows(480, tile, margin(CONFIG))
    cuts = [window.keep_start for window in windows[1:]]
    painted = translate_tiles(net, image, tile)
    assert painted.shape == image.shape
    whole = untiled(net, image)

    alone = torch.empty_like(image)
    for window in windows:
        part = untiled(net, image[:, :, window.start : window.stop])
        alone[:, :, window.keep_start : window.keep_stop] = part[
            :, :, window.keep_start - window.start : window.keep_stop - window.start
        ]
    assert seam(alone, cuts) > 20
    assert max(seam(painted, cuts), seam(whole, cuts)) < 3
    # What remains is the sample's: the same everywhere, and small.
    assert (painted.float() - whole.float()).abs().mean() < 3
    assert (alone.float() - whole.float()).abs().mean() > 8


@pytest.mark.parametrize(("height", "width"), [(1, 400), (400, 3), (97, 203), (64, 300)])
def test_any_shape(height, width):
    counted = []
    painted = translate_tiles(generator(), landscape(height, width), 96, counted.append)
    assert painted.shape == (3, height, width)
    assert painted.dtype == torch.uint8
    assert sum(counted) == height * width
    assert len(counted) > 1


def test_a_network_in_double_precision_is_given_doubles():
    image = landscape(130, 210)
    single, double = translate_tiles(generator(), image, 96), translate_tiles(generator().double(), image, 96)
    assert (single.int() - double.int()).abs().max() <= 1


def test_images_that_are_not_pixels_are_refused():
    """Floats would come out as almost black pixels' translations."""
    net, image = generator(), torch.zeros(3, 8, 8, dtype=torch.uint8)
    for wrong in (image.float(), image.numpy()):
        with pytest.raises(TypeError, match=r"expected a torch\.uint8 tensor"):
            translate_images(net, wrong)
    for wrong in (image, image.view(1, 8, 8, 3), image[None, :1], image[None, ..., :0]):
        with pytest.raises(ValueError, match=r"expected RGB pixels \[N, 3, H, W\]"):
            translate_images(net, wrong)
    with pytest.raises(ValueError, match=r"expected RGB pixels \[3, H, W\]"):
        translate_tiles(net, image[None], 512)
    with pytest.raises(ValueError, match="expected 112 pixels or more"):
        translate_tiles(net, image, 16)
    # What comes out may be drawn into.
    translate_images(net, image[None])[..., :1] = 0


def test_tiles_are_the_same_each_time():
    net, image = generator(), landscape(130, 210)
    assert torch.equal(translate_tiles(net, image, 96), translate_tiles(net, image, 96))


@pytest.mark.parametrize("side", [8, 96, 100, 104, 180, 1000, 4004])
@pytest.mark.parametrize(("tile", "reach"), [(96, 24), (96, 4), (1024, 92)])
def test_windows_cover_a_side_once_with_margins_inside(side, tile, reach):
    windows = tile_windows(side, tile, reach)
    assert [w.keep_start for w in windows] == [0, *(w.keep_stop for w in windows[:-1])]
    assert windows[-1].keep_stop == side
    assert len({w.stop - w.start for w in windows}) == 1
    for index, window in enumerate(windows):
        assert window.start % 4 == window.stop % 4 == 0
        assert 0 <= window.start < window.stop <= side
        assert window.stop - window.start <= tile
        assert index == 0 or window.keep_start - window.start >= reach
        assert index == len(windows) - 1 or window.stop - window.keep_stop >= reach


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 4000), (4000, 12), (3000, 4000), (1028, 1024)])
@pytest.mark.parametrize("tile", [96, 256, 1024])
def test_the_sample_lies_evenly_over_the_image_within_a_tiles_pixels(height, width, tile):
    crops = sample_crops(height, width, tile)
    sizes = {(rows.stop - rows.start, cols.stop - cols.start) for rows, cols in crops}
    assert len(sizes) == 1
    ((crop_height, crop_width),) = sizes
    assert min(crop_height, crop_width) >= 8
    assert len(crops) * crop_height * crop_width <= max(tile * tile, 64)
    assert len(set(map(str, crops))) == len(crops)
    for cut, side, length in ((0, height, crop_height), (1, width, crop_width)):
        starts = sorted({crop[cut].start for crop in crops})
        assert all(start % 4 == 0 and start + length <= side for start in starts)
        # As far from one end as from the other.
        assert abs(starts[0] - (side - length - starts[-1])) <= 4
    if height >= tile and width >= tile:
        assert len(crops) >= 12
