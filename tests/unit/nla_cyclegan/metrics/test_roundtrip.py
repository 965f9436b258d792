import pytest
import torch

from nla_cyclegan import DiscriminatorConfig, Generator, GeneratorConfig, LossConfig, PatchDiscriminator
from nla_cyclegan.inference.images import translate_images
from nla_cyclegan.metrics.round_trip import identity_l1, round_trip
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
    cycles = round_trip(ba, ab, b)[1].mean().item(), round_trip(ab, ba, a)[1].mean().item()
    assert cycles == pytest.approx((losses["cycle_b"].item(), losses["cycle_a"].item()))
    identities = identity_l1(ba, a).mean().item(), identity_l1(ab, b).mean().item()
    assert identities == pytest.approx((losses["identity_a"].item(), losses["identity_b"].item()))


def test_networks_in_double_precision_are_given_doubles(generators):
    inputs = noise(3, 1)
    single = round_trip(*generators, inputs)[1], identity_l1(generators[0], inputs)
    there, back = (each.double() for each in generators)
    double = round_trip(there, back, inputs)[1], identity_l1(there, inputs)
    assert [each.tolist() for each in double] == [pytest.approx(each.tolist()) for each in single]


def test_an_image_has_the_same_figures_in_every_batch(generators):
    images = noise(5, 1)
    painted, cycles = round_trip(*generators, images)
    assert torch.equal(painted, translate_images(generators[0], images))
    for rows in (slice(0, 1), slice(1, 3), slice(3, 5)):
        part, misses = round_trip(*generators, images[rows])
        assert torch.equal(part, painted[rows])
        assert torch.equal(misses, cycles[rows])
        assert torch.equal(identity_l1(generators[0], images[rows]), identity_l1(generators[0], images)[rows])
