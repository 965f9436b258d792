"""Distances between two sets of feature vectors: Fréchet, which makes the FID, and kernel, which makes the KID.

Shape suffixes: N and M vectors of D values each.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 1024


@dataclass(frozen=True)
class KernelDistance:
    """An unbiased estimate: of two draws from one distribution it is 0 on average, and as often below as above."""

    value: float
    standard_error: float


def frechet_distance(a_ND: Tensor, b_MD: Tensor) -> float:
    """|m_a - m_b|^2 + Tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of the Gaussians fitted to both sets: Heusel et al. 2017, Eq. 6.

    With fewer vectors than D it is too large, the more so the fewer there are (Bińkowski et al. 2018, section 4), and
    compares only among sets of the same sizes.

    Raises: ValueError for fewer than 2 vectors, or vectors of different widths.
    """
    _check(a_ND, b_MD, at_least=2)
    (mean_a, root_a), (mean_b, root_b) = _fit(a_ND), _fit(b_MD)
    # With C = R^T R, the eigenvalues of C_a C_b are the squared singular values of R_a R_b^T: no root of a product that
    # is neither symmetric nor, for N < D, of full rank.
    cross = torch.linalg.svdvals(root_a @ root_b.T).sum()
    spread = root_a.square().sum() + root_b.square().sum() - 2 * cross
    return ((mean_a - mean_b).square().sum() + spread).clamp_min(0).item()


def kernel_distance(a_ND: Tensor, b_MD: Tensor) -> KernelDistance:
    """Squared maximum mean discrepancy under k(x, y) = (x^T y / D + 1)^3: Bińkowski et al. 2018, section 4.

    The unbiased estimate (Gretton et al. 2012, Eq. 3) from all vectors at once: the mean that the usual random subsets
    of them wander about. The standard error is the jackknife's over both sets (Efron and Stein 1981).

    Raises: ValueError for fewer than 3 vectors, or vectors of different widths.
    """
    _check(a_ND, b_MD, at_least=3)
    a, b = a_ND.double(), b_MD.double()
    n, m = len(a), len(b)
    aa_N, bb_M = _row_sums(a, a) - _diagonal(a), _row_sums(b, b) - _diagonal(b)
    ab_N, ba_M = _row_sums(a, b), _row_sums(b, a)
    aa, bb, ab = aa_N.sum(), bb_M.sum(), ab_N.sum()
    value = aa / (n * (n - 1)) + bb / (m * (m - 1)) - 2 * ab / (n * m)
    without_a_N = (aa - 2 * aa_N) / ((n - 1) * (n - 2)) + bb / (m * (m - 1)) - 2 * (ab - ab_N) / ((n - 1) * m)
    without_b_M = aa / (n * (n - 1)) + (bb - 2 * bb_M) / ((m - 1) * (m - 2)) - 2 * (ab - ba_M) / (n * (m - 1))
    variance = (n - 1) * without_a_N.var(correction=0) + (m - 1) * without_b_M.var(correction=0)
    return KernelDistance(value.item(), variance.sqrt().item())


def _check(a_ND: Tensor, b_MD: Tensor, at_least: int) -> None:
    shapes = f"{list(a_ND.shape)} and {list(b_MD.shape)}"
    if a_ND.ndim != 2 or b_MD.ndim != 2 or a_ND.shape[1] != b_MD.shape[1]:
        raise ValueError(f"expected two sets of vectors of one width, got {shapes}")
    if min(len(a_ND), len(b_MD)) < at_least:
        raise ValueError(f"expected at least {at_least} vectors in each set, got {shapes}")


def _fit(vectors_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [D] and a root R [min(N, D), D] of the unbiased covariance C = R^T R."""
    vectors = vectors_ND.double()
    mean = vectors.mean(dim=0)
    centred = (vectors - mean) / (len(vectors) - 1) ** 0.5
    return mean, torch.linalg.qr(centred, mode="r").R


def _row_sums(x_ND: Tensor, y_MD: Tensor) -> Tensor:
    """Of the kernel matrix between x and y, a few rows at a time: the whole one would not fit for large sets."""
    return torch.cat([((rows @ y_MD.T / x_ND.shape[1] + 1) ** 3).sum(dim=1) for rows in x_ND.split(CHUNK)])


def _diagonal(x_ND: Tensor) -> Tensor:
    return (x_ND.square().mean(dim=1) + 1) ** 3
