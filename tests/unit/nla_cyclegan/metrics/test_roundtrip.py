import pytest
import torch

from nla_cyclegan import DiscriminatorConfig, Generator, GeneratorConfig, LossConfig, PatchDiscriminator
from nla_cyclegan.inference.images import translate_images
from nla_cyclegan.metrics.round_trip import round_trip
from nla_cyclegan.pixels import to_float
from nla_cyclegan.training.players import Generators


def noise(count, seed):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 32, 32), generator=random, dtype=torch.uint8)


@pytest.fixture
def generators():
    torch.manual_seed(0)
    config = GeneratorConfig(base_channels=2, num_blocks=2, nonlocal_blocks=(1,), nonlocal_gain=1.0)
    return Generator(config).eval(), Generator(config).eval()


def test_the_distances_are_the_terms_of_the_training_loss(generators):
    ab, ba = generators
    discriminators = [PatchDiscriminator(DiscriminatorConfig(base_channels=2)) for _ in range(2)]
    a, b = noise(3, 1), noise(3, 2)
    with torch.no_grad():
        _, losses, _, _ = Generators(ab, ba, *discriminators, LossConfig())(to_float(a), to_float(b))
    there, back = round_trip(ba, ab, b, a), round_trip(ab, ba, a, b)
    assert (there.cycle_l1, there.identity_l1) == pytest.approx((losses["cycle_b"].item(), losses["identity_a"].item()))
    assert (back.cycle_l1, back.identity_l1) == pytest.approx((losses["cycle_a"].item(), losses["identity_b"].item()))


def test_networks_in_double_precision_are_given_doubles(generators):
    inputs, real = noise(3, 1), noise(3, 2)
    single = round_trip(*generators, inputs, real)
    double = round_trip(*(each.double() for each in generators), inputs, real)
    assert (double.cycle_l1, double.identity_l1) == pytest.approx((single.cycle_l1, single.identity_l1))


def test_uneven_batches_count_by_their_images(generators, monkeypatch):
    inputs, real = noise(5, 1), noise(3, 2)
    whole = round_trip(*generators, inputs, real)
    monkeypatch.setattr("nla_cyclegan.metrics.round_trip.BATCH", 2)
    parts = round_trip(*generators, inputs, real)
    assert (parts.cycle_l1, parts.identity_l1) == pytest.approx((whole.cycle_l1, whole.identity_l1))
    assert torch.equal(parts.translations, translate_images(generators[0], inputs))
