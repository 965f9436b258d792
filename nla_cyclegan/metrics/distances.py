"""Distances between two sets of feature vectors: the Fréchet distance (FID), the kernel distance (KID), and memorization (MiFID).

They process a few rows at a time: the memory beside the vectors, which may lie in a file, does not grow with their number.

Shape suffixes: N and M vectors of D values each.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 1024
# Memorization distance from which on a set counts as not memorized: Bai et al. 2021, Eq. 9.
MEMORIZED = 0.1


@dataclass(frozen=True)
class KernelDistance:
    """An unbiased estimate: for two draws from one distribution its mean is 0."""

    value: float
    standard_error: float

    @property
    def is_significant(self) -> bool:
        """Whether the distance exceeds two standard errors."""
        return self.value > 2 * self.standard_error


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
    n, m = len(a_ND), len(b_MD)
    aa_N, bb_M = _row_sums(a_ND, a_ND) - _diagonal(a_ND), _row_sums(b_MD, b_MD) - _diagonal(b_MD)
    ab_N, ba_M = _row_sums(a_ND, b_MD), _row_sums(b_MD, a_ND)
    aa, bb, ab = aa_N.sum(), bb_M.sum(), ab_N.sum()
    value = aa / (n * (n - 1)) + bb / (m * (m - 1)) - 2 * ab / (n * m)
    without_a_N = (aa - 2 * aa_N) / ((n - 1) * (n - 2)) + bb / (m * (m - 1)) - 2 * (ab - ab_N) / ((n - 1) * m)
    without_b_M = aa / (n * (n - 1)) + (bb - 2 * bb_M) / ((m - 1) * (m - 2)) - 2 * (ab - ba_M) / (n * (m - 1))
    variance = (n - 1) * without_a_N.var(correction=0) + (m - 1) * without_b_M.var(correction=0)
    return KernelDistance(value.item(), variance.sqrt().item())


def memorization_distance(generated_ND: Tensor, training_MD: Tensor) -> float:
    """Mean distance of generated images to the nearest training image, 0..1: Bai et al. 2021, Eq. 7.

    The distance of two images is 1 - |cos| of their feature vectors; zero vectors are left out.
    (torchmetrics takes the mean over the set that it calls real.)

    Raises: ValueError for vectors of different widths.
    """
    _check(generated_ND, training_MD, at_least=1)
    nearest = []
    for rows in generated_ND.split(CHUNK):
        directions = _directions(rows)
        found = [1 - (directions @ _directions(others).T).abs() for others in training_MD.split(CHUNK)]
        nearest.append(torch.cat(found, dim=1).min(dim=1).values)
    return torch.cat(nearest).mean().item()


def memorization_informed(frechet: float, memorization: float) -> float:
    """MiFID, Bai et al. 2021, Eq. 8: the FID, divided by the memorization distance if that is below MEMORIZED."""
    if frechet <= 1e-8:
        return 0.0
    return frechet / (memorization + 1e-14) if memorization < MEMORIZED else frechet


def _directions(vectors_ND: Tensor) -> Tensor:
    vectors = vectors_ND.double()
    lengths = vectors.norm(dim=1, keepdim=True)
    return (vectors / lengths)[lengths[:, 0] > 0]


def _check(a_ND: Tensor, b_MD: Tensor, at_least: int) -> None:
    shapes = f"{list(a_ND.shape)} and {list(b_MD.shape)}"
    if a_ND.ndim != 2 or b_MD.ndim != 2 or a_ND.shape[1] != b_MD.shape[1]:
        raise ValueError(f"expected two sets of vectors of one width, got {shapes}")
    if min(len(a_ND), len(b_MD)) < at_least:
        raise ValueError(f"expected at least {at_least} vectors in each set, got {shapes}")


def _fit(vectors_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [D] and a root R [min(N, D), D] of the unbiased covariance C = R^T R."""
    count, width = vectors_ND.shape
    mean = torch.stack([rows.double().sum(dim=0) for rows in vectors_ND.split(CHUNK)]).sum(dim=0) / count
    root = mean.new_zeros(0, width)
    for rows in vectors_ND.split(CHUNK):
        # The previous root stands for the rows before: R^T R of the stacked matrix is the same.
        centred = (rows.double() - mean) / (count - 1) ** 0.5
        root = torch.linalg.qr(torch.cat([root, centred]), mode="r").R
    return mean, root


def _row_sums(x_ND: Tensor, y_MD: Tensor) -> Tensor:
    """Row sums of the kernel matrix between x and y, computed in blocks because the whole matrix may not fit into memory."""
    return torch.cat([_block_sums(rows.double(), y_MD) for rows in x_ND.split(CHUNK)])


def _block_sums(x_ND: Tensor, y_MD: Tensor) -> Tensor:
    blocks = (x_ND @ columns.double().T for columns in y_MD.split(CHUNK))
    return torch.stack([((block / x_ND.shape[1] + 1) ** 3).sum(dim=1) for block in blocks]).sum(dim=0)


def _diagonal(x_ND: Tensor) -> Tensor:
    return torch.cat([(rows.double().square().mean(dim=1) + 1) ** 3 for rows in x_ND.split(CHUNK)])
