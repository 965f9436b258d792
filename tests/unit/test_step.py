import copy

import pytest
import textbook
import torch

from nla_cyclegan import (
    DiscriminatorConfig,
    GeneratorConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    StepConfig,
    TrainingStep,
)  # fmt: skip
from nla_cyclegan.optim import make_optimizer
from nla_cyclegan.step import keyed_generator, to_float, to_uint8


def model(**generator) -> ModelConfig:
    fields = {"base_channels": 4, "num_blocks": 3, "nonlocal_blocks": (1,)} | generator
    return ModelConfig(
        generator=GeneratorConfig(**fields), discriminator=DiscriminatorConfig(base_channels=4, num_layers=1)
    )


def training_step(config: StepConfig | None = None, loss: LossConfig | None = None, *, batch=2, **generator):
    config = config or StepConfig(precision="fp64", pool_size=3)
    return TrainingStep(
        model(**generator), loss or LossConfig(), OptimizerConfig(lr=1e-3), config, seed=1, global_batch=batch
    )


def batch_of(step: int, size=2) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.randint(0, 256, (2, size, 3, 32, 32), dtype=torch.uint8, generator=keyed_generator(9, step))
    return images[0], images[1]


@pytest.mark.parametrize("blocks", [(), (1,), (0, 2)])
@pytest.mark.parametrize(("upsample", "norm"), [("transposed", "instance"), ("resize", "group")])
def test_equals_the_textbook_step(blocks, upsample, norm):
    step = training_step(nonlocal_blocks=blocks, upsample=upsample, norm=norm, nonlocal_gain=0.5)
    reference = textbook.Textbook(
        copy.deepcopy(step.networks), lambda p: make_optimizer(OptimizerConfig(lr=1e-3), p), cycle=10, identity=0.5
    )
    for k in range(4):
        a, b = batch_of(k)
        lr = 1e-3 / (k + 1)
        losses = step(a, b, images_seen=2 * k, lr=lr)
        inputs = (to_float(a, torch.double), to_float(b, torch.double))
        expected = reference(*inputs, lr, 3, keyed_generator(1, 0, 2 * k))
        got = {name: value.item() for name, value in losses.items() if name != "generator_total"}
        assert got == pytest.approx(expected, abs=1e-10)
        weighted = {"gan": 1, "cycle": 10, "identity": 5, "discriminator": 0}
        total = sum(weighted[name.split("_")[0]] * value for name, value in expected.items())
        assert losses["generator_total"].item() == pytest.approx(total, abs=1e-9)
    networks = (reference.g, reference.f, reference.d_a, reference.d_b)
    for (name, network), other in zip(step.networks.items(), networks, strict=True):
        for (key, p), q in zip(network.named_parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=0, atol=1e-10, msg=lambda m, n=name, k=key: f"{n}.{k}: {m}")


def test_identity_weight_0_skips_the_identity_images():
    losses = training_step(loss=LossConfig(identity=0))(*batch_of(0), images_seen=0, lr=1e-3)
    assert not [name for name in losses if name.startswith("identity")]


def test_two_parts_weighted_by_their_share_give_the_gradient_of_the_whole():
    """One process plays both ranks in turn; DDP's average over 2 ranks is the mean of the two gradients."""
    whole = training_step(StepConfig(precision="fp64", pool_size=0), batch=3)
    a, b = batch_of(0, 3)
    losses = whole(a, b, images_seen=0, lr=0.0)
    means, sums = None, dict.fromkeys(losses, 0.0)
    for rank, part in enumerate((slice(0, 2), slice(2, 3))):
        half = TrainingStep(
            model(), LossConfig(), OptimizerConfig(lr=1e-3), StepConfig(precision="fp64", pool_size=0),
            seed=1, global_batch=3, rank=rank, world=2,
        )  # fmt: skip
        for name, value in half(a[part], b[part], images_seen=0, lr=0.0).items():
            sums[name] += value.item()
        gradients = [p.grad / 2 for n in half.networks.values() for p in n.parameters()]
        means = gradients if means is None else [m + g for m, g in zip(means, gradients, strict=True)]
    assert sums == pytest.approx({name: value.item() for name, value in losses.items()}, abs=1e-12)
    for mean, p in zip(means, (p for n in whole.networks.values() for p in n.parameters()), strict=True):
        torch.testing.assert_close(mean, p.grad, rtol=0, atol=1e-12)


def test_is_a_function_of_seed_and_images_seen():
    def weights(images_seen):
        step = training_step()
        for k in range(4):
            step(*batch_of(k), images_seen=images_seen + 2 * k, lr=1e-3)
        return torch.cat([p.flatten() for n in step.networks.values() for p in n.parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(2)), "the history's draws are keyed by the images seen"


@pytest.mark.parametrize("channels_last", [False, True])
def test_bf16_follows_fp32(channels_last):
    losses = [
        training_step(StepConfig(precision=p, channels_last=channels_last))(*batch_of(0), images_seen=0, lr=1e-3)
        for p in ("fp32", "bf16")
    ]
    for name, value in losses[0].items():
        assert losses[1][name].item() == pytest.approx(value.item(), rel=0.02), name


def test_what_the_check_raises_leaves_the_weights_untouched():
    step = training_step()

    def refuse(losses):
        if "discriminator_a" in losses:
            raise RuntimeError("stop")

    before = {name: copy.deepcopy(network.state_dict()) for name, network in step.networks.items()}
    step.check = refuse
    with pytest.raises(RuntimeError, match="stop"):
        step(*batch_of(0), images_seen=0, lr=1e-3)
    moved = {
        name for name, network in step.networks.items()
        if any(not torch.equal(value, before[name][key]) for key, value in network.state_dict().items())
    }  # fmt: skip
    assert moved == {"generator_ab", "generator_ba"}


def test_all_pools_together_hold_pool_size():
    parts = [
        TrainingStep(
            model(), LossConfig(), OptimizerConfig(), StepConfig(pool_size=50), seed=0, global_batch=4, rank=r, world=4
        ).pools["a"].capacity
        for r in range(4)
    ]  # fmt: skip
    assert sum(parts) == 50
    assert max(parts) - min(parts) <= 1


def test_pixels_survive_the_round_trip():
    pixels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(pixels)), pixels)
    assert to_uint8(torch.tensor([-2.0, 2.0])).tolist() == [0, 255]
