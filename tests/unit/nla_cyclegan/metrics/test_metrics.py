import math

import numpy as np
import pytest
import torch
from measured import sliced_wasserstein
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from nla_cyclegan.metrics.similarity import psnr, ssim
from nla_cyclegan.metrics.sliced_wasserstein import patch_distance
from nla_cyclegan.pixels import keyed_generator

LUMA = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)


def noise(count, height=32, width=32, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), generator=random, dtype=torch.uint8)


def blobs(count, seed=0):
    """Images with structure at several scales: noise enlarged 1, 4 and 16 times."""
    random = torch.Generator().manual_seed(seed)
    total = torch.zeros(count, 3, 32, 32)
    for side, weight in ((32, 20), (8, 60), (2, 100)):
        coarse = torch.rand(count, 3, side, side, generator=random)
        total += weight * coarse.repeat_interleave(32 // side, 2).repeat_interleave(32 // side, 3)
    return total.to(torch.uint8)


# The published algorithm once more, one pixel at a time in numpy.


def mirrored(index, size):
    index = abs(index)
    return 2 * (size - 1) - index if index >= size else index


def blurred(image):
    taps, (height, width) = np.array([1, 4, 6, 4, 1]) / 16, image.shape
    out = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            for dy in range(-2, 3):
                for dx in range(-2, 3):
                    value = image[mirrored(y + dy, height), mirrored(x + dx, width)]
                    out[y, x] += taps[dy + 2] * taps[dx + 2] * value
    return out


def pyramid(image):
    levels = [image.astype(np.float64)]
    while min(levels[-1].shape) // 2 >= 16:
        small = blurred(levels[-1])[::2, ::2]
        spread = np.zeros_like(levels[-1])
        spread[::2, ::2] = small
        levels[-1] = levels[-1] - 4 * blurred(spread)
        levels.append(small)
    return levels


def descriptors(images, level, seed):
    places = torch.rand(len(images), 128, 2, generator=keyed_generator(seed, 0, level), dtype=torch.float64).numpy()
    patches = []
    for image, image_places in zip(images.numpy(), places, strict=True):
        channels = [pyramid(channel)[level] for channel in image]
        side = channels[0].shape[0] - 6
        for row, col in (image_places * side).astype(int):
            patches.append([channel[row : row + 7, col : col + 7] for channel in channels])
    patches = np.array(patches)
    for channel in range(3):
        values = patches[:, channel]
        patches[:, channel] = (values - values.mean()) / values.std()
    return patches.reshape(len(patches), -1)


def distance(a, b, level, seed):
    random, results = keyed_generator(seed, 1, level), []
    for _ in range(4):
        directions = torch.randn(a.shape[1], 128, generator=random).double().numpy()
        for direction in directions.T:
            unit = direction / math.sqrt(sum(direction**2))
            results.append(np.mean(np.abs(np.sort(a @ unit) - np.sort(b @ unit))))
    return 1e3 * float(np.mean(results))


def test_sliced_wasserstein_equals_the_published_algorithm_written_out():
    a, b = blobs(2), noise(2)
    measured = sliced_wasserstein(a, b, seed=3)
    expected = {32 >> level: distance(descriptors(a, level, 3), descriptors(b, level, 3), level, 3) for level in (0, 1)}
    assert measured.levels == pytest.approx(expected, rel=1e-4)
    assert measured.mean == pytest.approx(sum(expected.values()) / 2, rel=1e-4)


def test_the_distance_of_a_set_to_itself_is_zero_and_of_two_draws_small():
    assert sliced_wasserstein(blobs(4), blobs(4)).mean == 0
    draws = sliced_wasserstein(noise(8, seed=1), noise(8, seed=2)).mean
    assert 0 < draws < sliced_wasserstein(noise(8, seed=1), blobs(8)).mean / 1.5


def test_brightness_and_contrast_do_not_count_structure_does():
    original = blobs(4) & 0xFC
    changed = original // 4 * 2 + 60
    assert sliced_wasserstein(original, changed).mean < 0.01
    assert sliced_wasserstein(original, original.flip(2)).mean > 10


@pytest.mark.parametrize("shift", [0.5, 3.0])
def test_shifted_gaussians_have_the_distance_of_the_closed_form(shift):
    # Along a unit direction u the distance is shift |u_1|, whose mean on the sphere of D dimensions is known.
    dimensions = 147
    a = torch.randn(4000, dimensions, generator=torch.Generator().manual_seed(0))
    b = a.clone()
    b[:, 0] += shift
    mean_u1 = math.exp(math.lgamma(dimensions / 2) - math.lgamma((dimensions + 1) / 2)) / math.sqrt(math.pi)
    assert patch_distance(a, b, level=0) == pytest.approx(1e3 * shift * mean_u1, rel=0.1)


def test_sets_of_different_sizes_are_compared_by_equal_numbers_of_patches():
    a = torch.randn(3000, 147, generator=torch.Generator().manual_seed(0))
    b = torch.randn(2000, 147, generator=torch.Generator().manual_seed(1))
    chosen = torch.randperm(3000, generator=keyed_generator(5, 2, 1))[:2000]
    expected = distance(a[chosen].double().numpy(), b.double().numpy(), level=1, seed=5)
    assert patch_distance(a, b, level=1, seed=5) == pytest.approx(expected, rel=1e-4)
    assert sliced_wasserstein(noise(6), noise(9, seed=1)).mean < sliced_wasserstein(noise(6), blobs(9)).mean


def test_it_is_a_function_of_the_seed():
    a, b = noise(3), blobs(3)
    assert sliced_wasserstein(a, b, seed=1) == sliced_wasserstein(a, b, seed=1)
    assert sliced_wasserstein(a, b, seed=1) != sliced_wasserstein(a, b, seed=2)


def test_many_images_are_one_set(monkeypatch):
    a, b = blobs(5), noise(5)
    whole = sliced_wasserstein(a, b)
    monkeypatch.setattr("nla_cyclegan.metrics.sampled.PIXELS", 2 * 32 * 32)
    assert sliced_wasserstein(a, b).levels == pytest.approx(whole.levels, rel=1e-5)


def test_any_size_from_16_px_and_constant_images():
    assert list(sliced_wasserstein(noise(2, 35, 50), noise(2, 35, 50, seed=1)).levels) == [35, 18]
    assert math.isfinite(sliced_wasserstein(torch.full((2, 3, 16, 16), 9, dtype=torch.uint8), noise(2, 16, 16)).mean)


def test_psnr_of_a_constant_difference():
    a = noise(2) // 2
    ratios = psnr(a, a + torch.tensor([10, 20], dtype=torch.uint8).view(2, 1, 1, 1))
    assert ratios.tolist() == pytest.approx([20 * math.log10(255 / 10), 20 * math.log10(255 / 20)])
    assert psnr(a, a).tolist() == [math.inf, math.inf]


def test_psnr_and_ssim_equal_those_of_torchmetrics():
    a, b = blobs(3), (blobs(3).int() + noise(3).int() // 8).clamp(0, 255).to(torch.uint8)
    theirs = peak_signal_noise_ratio(a.double(), b.double(), data_range=255.0, reduction="none", dim=(1, 2, 3))
    assert psnr(a, b).tolist() == pytest.approx(theirs.tolist(), rel=1e-6)
    luma_a, luma_b = (images.double().permute(0, 2, 3, 1) @ LUMA for images in (a, b))
    _, full = structural_similarity_index_measure(
        luma_a[:, None], luma_b[:, None], sigma=1.5, data_range=255.0, return_full_image=True
    )
    # Theirs also counts windows over the mirrored border; Wang et al.'s own code, and this one, only whole ones.
    assert ssim(a, b).tolist() == pytest.approx(full[..., 5:-5, 5:-5].mean(dim=(1, 2, 3)).tolist(), rel=1e-6)


def ssim_of_windows(a, b):
    """Wang et al. 2004, Eq. 13, one window at a time."""
    luma_a, luma_b = (np.tensordot([0.299, 0.587, 0.114], image.double().numpy(), axes=1) for image in (a, b))
    offsets = np.arange(-5, 6)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for y in range(luma_a.shape[0] - 10):
        for x in range(luma_a.shape[1] - 10):
            p, q = luma_a[y : y + 11, x : x + 11], luma_b[y : y + 11, x : x + 11]
            mean_p, mean_q = (weights * p).sum(), (weights * q).sum()
            var_p, var_q = (weights * (p - mean_p) ** 2).sum(), (weights * (q - mean_q) ** 2).sum()
            cov = (weights * (p - mean_p) * (q - mean_q)).sum()
            c1, c2 = 2.55**2, 7.65**2
            value = (2 * mean_p * mean_q + c1) * (2 * cov + c2) / ((mean_p**2 + mean_q**2 + c1) * (var_p + var_q + c2))
            values.append(value)
    return np.mean(values)


def test_ssim_equals_its_formula_window_by_window():
    a, b = noise(2, 14, 17), blobs(2)[:, :, :14, :17]
    expected = [ssim_of_windows(*pair) for pair in zip(a, b, strict=True)]
    assert ssim(a, b).tolist() == pytest.approx(expected, rel=1e-9)
    assert ssim(a, a).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize(("other", "smallest"), [((1, 3, 20, 20), 1), ((2, 3, 8, 8), 11), ((3, 20, 20), 1)])
def test_pairs_of_other_shapes_are_refused(other, smallest):
    a, b = noise(2, 20, 20), torch.zeros(other, dtype=torch.uint8)
    for measure in (psnr, ssim):
        with pytest.raises(ValueError, match=r"expected \[N, 3, H, W\] of one shape"):
            measure(a, b)
    if smallest == 11:
        with pytest.raises(ValueError, match="sides from 11 px on"):
            ssim(b, b)
