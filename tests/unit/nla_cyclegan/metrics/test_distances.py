import math

import pytest
import torch
from torch_fidelity import FeatureExtractorBase, calculate_metrics, register_feature_extractor
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance
from torchmetrics.image.mifid import MemorizationInformedFrechetInceptionDistance

from nla_cyclegan.metrics.distances import (
    frechet_distance,
    kernel_distance,
    memorization_distance,
    memorization_informed,
)


def vectors(count, width=5, seed=0, shift=0.0):
    random = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=random, dtype=torch.float64)
    return torch.randn(count, width, generator=random, dtype=torch.float64) @ mixing + shift


def exact(mean, root, count=40, seed=0):
    """Vectors whose sample mean and unbiased sample covariance root^T root are exactly these."""
    random = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, len(mean), generator=random, dtype=torch.float64)
    white = torch.linalg.qr(noise - noise.mean(dim=0)).Q * math.sqrt(count - 1)
    return white @ root + mean


class AsTheyAre(torch.nn.Module):
    """Stands for torchmetrics' Inception: the vectors are handed over in place of images."""

    def __init__(self, width):
        super().__init__()
        self.num_features = width

    def forward(self, vectors_ND):
        return vectors_ND


def test_frechet_distance_of_gaussians_along_the_axes_is_the_closed_form():
    mean_a, mean_b = torch.tensor([[1.0, 2.0, 3.0], [0.0, 2.5, 7.0]], dtype=torch.float64)
    std_a, std_b = torch.tensor([[1.0, 0.1, 4.0], [2.0, 0.3, 4.0]], dtype=torch.float64)
    expected = (mean_a - mean_b).square().sum() + (std_a - std_b).square().sum()
    a, b = exact(mean_a, std_a.diag()), exact(mean_b, std_b.diag(), count=25, seed=1)
    assert frechet_distance(a, b) == pytest.approx(expected.item(), rel=1e-10)


def symmetric_root(matrix):
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ values.clamp_min(0).sqrt().diag() @ vectors.T


@pytest.mark.parametrize(("n", "m"), [(40, 30), (4, 7)], ids=["full rank", "fewer vectors than values"])
def test_frechet_distance_is_that_of_the_fitted_gaussians(n, m):
    a, b = vectors(n, width=10), vectors(m, width=10, seed=1, shift=0.5)
    root = symmetric_root(a.T.cov())
    middle = symmetric_root(root @ b.T.cov() @ root).trace()
    expected = (a.mean(0) - b.mean(0)).square().sum() + a.T.cov().trace() + b.T.cov().trace() - 2 * middle
    # The reference takes roots of eigenvalues that are 0 up to rounding.
    assert frechet_distance(a, b) == pytest.approx(expected.item(), rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-10)


def test_frechet_distance_equals_that_of_torchmetrics():
    a, b = vectors(60, width=8), vectors(50, width=8, seed=1, shift=1.0)
    theirs = FrechetInceptionDistance(feature=AsTheyAre(8))
    theirs.update(a, real=True)
    theirs.update(b, real=False)
    assert frechet_distance(a, b) == pytest.approx(theirs.compute().item(), rel=1e-6)


def test_a_set_is_at_distance_zero_of_itself():
    a = vectors(20, width=30)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9 * a.square().sum().item())


def kernel(x, y):
    return (sum(p * q for p, q in zip(x, y, strict=True)) / len(x) + 1) ** 3


def unbiased(a, b):
    """Gretton et al. 2012, Eq. 3, with the kernel of Bińkowski et al. 2018, one pair at a time."""
    a, b = a.tolist(), b.tolist()
    n, m = len(a), len(b)
    within_a = sum(kernel(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_b = sum(kernel(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    between = sum(kernel(x, y) for x in a for y in b) / (n * m)
    return within_a + within_b - 2 * between


def without(vectors_ND, index):
    return torch.cat([vectors_ND[:index], vectors_ND[index + 1 :]])


def test_kernel_distance_equals_its_formula_pair_by_pair():
    a, b = vectors(9), vectors(6, seed=1, shift=0.3)
    assert kernel_distance(a, b).value == pytest.approx(unbiased(a, b), rel=1e-10)


def test_its_standard_error_is_the_jackknife_one_vector_left_out_at_a_time():
    a, b = vectors(9), vectors(6, seed=1, shift=0.3)
    leave_a = torch.tensor([unbiased(without(a, i), b) for i in range(9)], dtype=torch.float64)
    leave_b = torch.tensor([unbiased(a, without(b, i)) for i in range(6)], dtype=torch.float64)
    variance = sum((len(each) - 1) / len(each) * (each - each.mean()).square().sum() for each in (leave_a, leave_b))
    assert kernel_distance(a, b).standard_error == pytest.approx(variance.sqrt().item(), rel=1e-10)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save all extracted features")
def test_kernel_distance_equals_that_of_torchmetrics():
    a, b = vectors(20, width=8), vectors(20, width=8, seed=1, shift=0.3)
    theirs = KernelInceptionDistance(feature=AsTheyAre(8), subsets=1, subset_size=20)
    theirs.update(a, real=True)
    theirs.update(b, real=False)
    assert kernel_distance(a, b).value == pytest.approx(theirs.compute()[0].item(), rel=1e-6)


def draws(shift):
    random = torch.Generator().manual_seed(3)
    sets = torch.randn(300, 2, 20, 6, generator=random, dtype=torch.float64)
    sets[:, 1] += shift
    return [kernel_distance(a, b) for a, b in sets]


def test_over_many_draws_it_is_unbiased_and_its_standard_error_is_their_spread():
    same = torch.tensor([draw.value for draw in draws(0.0)])
    assert abs(same.mean()) < 3 * same.std() / math.sqrt(len(same))
    assert (same < 0).any()
    apart = draws(0.7)
    spread = torch.tensor([draw.value for draw in apart]).std().item()
    stated = torch.tensor([draw.standard_error for draw in apart]).mean().item()
    assert stated == pytest.approx(spread, rel=0.2)


@pytest.mark.parametrize("width", [5, 30], ids=["full rank", "fewer vectors than values"])
def test_large_sets_are_taken_a_few_rows_at_a_time(monkeypatch, width):
    a, b = vectors(9, width), vectors(6, width, seed=1)
    whole, frechet, memorized = kernel_distance(a, b), frechet_distance(a, b), memorization_distance(a, b)
    monkeypatch.setattr("nla_cyclegan.metrics.distances.CHUNK", 4)
    assert kernel_distance(a, b).value == pytest.approx(whole.value, rel=1e-12)
    assert kernel_distance(a, b).standard_error == pytest.approx(whole.standard_error, rel=1e-12)
    assert frechet_distance(a, b) == pytest.approx(frechet, rel=1e-10)
    assert memorization_distance(a, b) == pytest.approx(memorized, rel=1e-12)


class StandIn(FeatureExtractorBase):
    """Stands for torch-fidelity's Inception: the mean colours of the quarters of an image."""

    def __init__(self, name, features_list, **options):
        super().__init__(name, features_list)

    @staticmethod
    def get_provided_features_list():
        return ("quarters",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
        return "quarters"

    @staticmethod
    def can_be_compiled():
        return False

    def forward(self, images_NCHW):
        return (torch.nn.functional.adaptive_avg_pool2d(images_NCHW.double() / 32, 2).flatten(1),)


@pytest.fixture(scope="module")
def stand_in():
    register_feature_extractor("quarters", StandIn)


class Images(torch.utils.data.Dataset):
    def __init__(self, count, seed, brightest=256):
        random = torch.Generator().manual_seed(seed)
        coarse = torch.randint(0, brightest, (count, 3, 4, 4), generator=random, dtype=torch.uint8)
        self.images = coarse.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


@pytest.mark.parametrize("brightest", [200, 256])
def test_both_distances_are_those_of_torch_fidelity(stand_in, brightest):
    a, b = Images(60, 0), Images(60, 1, brightest)
    theirs = calculate_metrics(
        input1=a, input2=b, feature_extractor="quarters", fid=True, kid=True, kid_subsets=1, kid_subset_size=60,
        cuda=False, cache=False, save_cpu_ram=True, verbose=False,
    )  # fmt: skip
    ours = [StandIn("quarters", ["quarters"])(each.images)[0] for each in (a, b)]
    assert frechet_distance(*ours) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)
    assert kernel_distance(*ours).value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6)


@pytest.mark.filterwarnings("ignore:Metric `MemorizationInformed")
@pytest.mark.parametrize("shift", [0.0, 6.0], ids=["none memorized", "all near"])
def test_mifid_equals_that_of_torchmetrics(shift):
    training, generated = vectors(50, width=8, shift=shift), vectors(40, width=8, seed=1, shift=shift)
    training[7], generated[3] = 0, 0
    theirs = MemorizationInformedFrechetInceptionDistance(feature=AsTheyAre(8))
    # It takes the mean over the set that it calls real, the paper over the generated one.
    theirs.update(generated, real=True)
    theirs.update(training, real=False)
    distance, frechet = memorization_distance(generated, training), frechet_distance(generated, training)
    assert (distance < 0.1) == (shift > 0)
    assert memorization_informed(frechet, distance) == pytest.approx(theirs.compute().item(), rel=1e-6)


def test_copies_of_a_few_training_images_are_memorized_and_other_images_are_not():
    training = vectors(200, width=16)
    copies = training[torch.tensor([3, 5, 3, 8])]
    assert memorization_distance(copies, training) == pytest.approx(0, abs=1e-12)
    assert memorization_distance(2 * copies, training) == pytest.approx(0, abs=1e-12)
    assert memorization_distance(vectors(4, width=16, seed=1), training) > 0.1
    assert memorization_informed(30.0, 0.05) == pytest.approx(600)
    assert memorization_informed(30.0, 0.2) == 30


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
@pytest.mark.parametrize("other", [torch.zeros(5, 4), torch.zeros(5), torch.zeros(1, 5)], ids=["width", "flat", "few"])
def test_other_shapes_are_refused(distance, other):
    with pytest.raises(ValueError, match="expected"):
        distance(vectors(5), other)
