"""Similarity of pairs of images: PSNR and SSIM.

Shape suffixes: N images, C = 3 channels, H x W pixels.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from nla_cyclegan.metrics.filters import separable
from nla_cyclegan.metrics.sampled import chunks

SCENE = 32


def psnr(a_NCHW: Tensor, b_NCHW: Tensor) -> Tensor:
    """Peak signal to noise ratio of each pair over its RGB values, dB [N]: 10 log10(255^2 / MSE); infinite for equal images.

    Args: a_NCHW, b_NCHW: uint8, or floats of that range, [N, 3, H, W]. Raises: ValueError for shapes that differ.
    """
    _check(a_NCHW, b_NCHW, 1)
    error = _mean((a_NCHW.double() - b_NCHW.double()).square())
    return 10 * (255**2 / error).log10()


def ssim(a_NCHW: Tensor, b_NCHW: Tensor) -> Tensor:
    """Structural similarity of each pair's luma (ITU-R BT.601), [N], in -1..1: Wang et al. 2004, Eq. 13.

    Gaussian window 11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, L = 255, the mean over windows that lie inside the image.

    Args: a_NCHW, b_NCHW: uint8, or floats of that range, [N, 3, H, W], H and W at least 11. Raises: ValueError for others.
    """
    _check(a_NCHW, b_NCHW, 11)
    return torch.cat([_ssim(*pair) for pair in zip(chunks(a_NCHW), chunks(b_NCHW), strict=True)])


def scene_ssim(a_NCHW: Tensor, b_NCHW: Tensor) -> Tensor:
    """Structural similarity of each pair's scenes, [N]: of the images halved as long as 32 px are left of the shorter side.

    Brushwork is gone at that size and what stands where is left. Of drawn landscapes of 128 px and their true paintings it is
    0.79, of other scenes' paintings 0.15; at full size these are 0.40 and 0.19 (tests/benchmarks/degradations.py).

    Args: a_NCHW, b_NCHW: as of `ssim`.
    """
    factor = 2 ** max(0, (min(a_NCHW.shape[-2:]) // SCENE).bit_length() - 1)
    return ssim(*(F.avg_pool2d(images.float(), factor) for images in (a_NCHW, b_NCHW)))


def _check(a_NCHW: Tensor, b_NCHW: Tensor, smallest: int) -> None:
    if a_NCHW.shape != b_NCHW.shape or a_NCHW.dim() != 4 or min(a_NCHW.shape[2:]) < smallest:
        raise ValueError(
            f"images {list(a_NCHW.shape)} and {list(b_NCHW.shape)}: expected [N, 3, H, W] of one shape, sides from {smallest} px on"
        )


def _ssim(a_NCHW: Tensor, b_NCHW: Tensor) -> Tensor:
    a, b = _luma(a_NCHW), _luma(b_NCHW)
    weights = torch.exp(-torch.arange(-5, 6, dtype=torch.float64).square() / (2 * 1.5**2))
    window = (weights / weights.sum()).tolist()
    mean_a, mean_b = separable(a, window), separable(b, window)
    var_a = separable(a * a, window) - mean_a.square()
    var_b = separable(b * b, window) - mean_b.square()
    covariance = separable(a * b, window) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    return _mean(luminance * structure)


def _mean(values_NCHW: Tensor) -> Tensor:
    """Of each image, [N]; row by row, because the order of a longer sum depends on the numbers of images and threads."""
    return values_NCHW.mean(dim=3).mean(dim=(1, 2))


def _luma(images_NCHW: Tensor) -> Tensor:
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64, device=images_NCHW.device)
    return (images_NCHW.double() * weights[:, None, None]).sum(dim=1, keepdim=True)
