import copy
import math
from functools import partial

import pytest
import textbook
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nla_cyclegan import (
    DiscriminatorConfig,
    GeneratorConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    StepConfig,
    TrainingStep,
)
from nla_cyclegan.model.attention import NonLocalBlock
from nla_cyclegan.pixels import keyed_generator, to_float, to_uint8
from nla_cyclegan.training.augment import NUMBERS, VIEWS, Augment
from nla_cyclegan.training.losses import Plain

EXACT = {"precision": "fp64", "pool_size": 3}


def model(*, attended=(), **generator) -> ModelConfig:
    fields = {"base_channels": 4, "num_blocks": 3, "nonlocal_blocks": (1,)} | generator
    discriminator = DiscriminatorConfig(base_channels=4, num_layers=1, nonlocal_blocks=attended, nonlocal_gain=0.5)
    return ModelConfig(generator=GeneratorConfig(**fields), discriminator=discriminator)


def training_step(config: dict | None = None, *, batch=2, loss=None, optimizer="nadam", rank=0, world=1, **generator):
    return TrainingStep(
        model(**generator), loss or LossConfig(), OptimizerConfig(name=optimizer, lr=1e-3),
        StepConfig(**(EXACT if config is None else config)), seed=1, global_batch=batch, rank=rank, world=world,
    )  # fmt: skip


def batch_of(step: int, size=2) -> tuple[Tensor, Tensor]:
    images = torch.randint(0, 256, (2, size, 3, 32, 32), dtype=torch.uint8, generator=keyed_generator(9, step))
    return images[0], images[1]


def everything(step: TrainingStep) -> dict[str, Tensor]:
    """All that a step may move, but the image pools."""
    tensors = {f"{name}.{key}": value for name, n in step.networks.items() for key, value in n.named_parameters()}
    tensors |= {
        f"ema.{name}.{key}": v for name, n in step.inference_generators.items() for key, v in n.named_parameters()
    }
    for name, optimizer in step.optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}.{index}.{key}": value for key, value in state.items()}
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def gradients(step: TrainingStep) -> list[Tensor]:
    return [parameter.grad.clone() for network in step.networks.values() for parameter in network.parameters()]


def torchs_own(name: str, parameters) -> torch.optim.Optimizer:
    """Torch's optimizers, whose scalars are kept in fp64 for it."""
    if name == "adam":
        return torch.optim.Adam(parameters, betas=(0.5, 0.999))
    return torch.optim.NAdam(parameters, betas=(0.5, 0.999), momentum_decay=4e-3)


@pytest.fixture
def fp64_scalars():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


PLAIN = {"upsample": "transposed", "norm": "instance"}


@pytest.mark.usefixtures("fp64_scalars")
@pytest.mark.parametrize(
    ("generator", "identity", "optimizer", "micro_batch"),
    [
        (PLAIN | {"nonlocal_blocks": ()}, 0.5, "nadam", None),
        (PLAIN | {"nonlocal_blocks": (1,)}, 0.5, "nadam", None),
        (PLAIN | {"nonlocal_blocks": (1,), "nonlocal_gain": 0.0}, 0.5, "nadam", None),
        (PLAIN | {"nonlocal_blocks": (0, 2), "nonlocal_pooled": True, "nonlocal_scaled": True}, 0.5, "nadam", 1),
        (PLAIN | {"nonlocal_blocks": (0, 1, 2)}, 0.0, "nadam", 2),
        (PLAIN | {"nonlocal_blocks": (1,)}, 0.5, "adam", None),
        ({"upsample": "resize", "norm": "group", "nonlocal_blocks": (0, 2)}, 0.5, "nadam", None),
        ({"upsample": "resize", "norm": "group", "nonlocal_blocks": ()}, 0.0, "adam", 2),
        (PLAIN | {"output": "masked", "nonlocal_gain": "fixed"}, 0.5, "nadam", None),
        (PLAIN | {"nonlocal_blocks": "all", "attended": (0, 1)}, 0.5, "nadam", 2),
    ],
)
def test_losses_and_gradients_are_the_textbook_steps(generator, identity, optimizer, micro_batch):
    step = training_step(
        EXACT | {"micro_batch": micro_batch}, batch=3, loss=LossConfig(identity=identity), optimizer=optimizer,
        **{"nonlocal_gain": 0.5} | generator,
    )  # fmt: skip
    networks = copy.deepcopy(step.networks)
    reference = textbook.Textbook(networks, lambda p: torchs_own(optimizer, p), cycle=10, identity=identity)
    for k in range(4):
        a, b = batch_of(k, 3)
        lr = 1e-3 / (k + 1)
        losses = step(a, b, images_seen=3 * k, lr=lr)
        inputs = (to_float(a, torch.double), to_float(b, torch.double))
        expected = reference(*inputs, lr, 3, keyed_generator(1, 0, 3 * k))
        weighted = {"gan": 1, "cycle": 10, "identity": 10 * identity, "discriminator": 0}
        expected["generator_total"] = sum(weighted[name.split("_")[0]] * value for name, value in expected.items())
        assert losses.keys() == expected.keys()
        for name, value in expected.items():
            assert losses[name].item() == pytest.approx(value.item(), abs=1e-10), (k, name)
        for name, network in networks.items():
            ours = dict(step.networks[name].named_parameters())
            for key, parameter in network.named_parameters():
                where = f"step {k}, {name}.{key}"
                torch.testing.assert_close(
                    ours[key].grad, parameter.grad, rtol=0, atol=1e-10, msg=lambda m, w=where: f"{w}: {m}"
                )
                torch.testing.assert_close(ours[key], parameter, rtol=0, atol=1e-10, msg=lambda m, w=where: f"{w}: {m}")
    assert step.finite


@pytest.mark.usefixtures("fp64_scalars")
@pytest.mark.parametrize("micro_batch", [None, 2])
def test_augmented_discriminators_of_another_rate_are_the_textbook_steps(micro_batch):
    kinds = ("color", "translation", "cutout")
    step = TrainingStep(
        model(), LossConfig(augment=kinds), OptimizerConfig(lr=1e-3, discriminator_lr=4e-3),
        StepConfig(**EXACT, micro_batch=micro_batch), seed=1, global_batch=3,
    )  # fmt: skip
    networks = copy.deepcopy(step.networks)
    reference = textbook.Textbook(
        networks, lambda p: torchs_own("nadam", p), cycle=10, identity=0.5, discriminator_rate=4.0
    )
    for k in range(3):
        a, b = batch_of(k, 3)
        random = keyed_generator(1, 0, 3 * k)
        for _ in "ab":
            # What the image pools draw.
            torch.rand(3, generator=random), torch.randint(3, (3,), generator=random)
        numbers = torch.rand(3, VIEWS, NUMBERS, generator=random, dtype=torch.float32)
        seen = partial(seen_as, numbers, Augment(kinds))
        losses = step(a, b, images_seen=3 * k, lr=1e-3)
        inputs = (to_float(a, torch.double), to_float(b, torch.double))
        expected = reference(*inputs, 1e-3, 3, keyed_generator(1, 0, 3 * k), seen)
        for name, value in expected.items():
            assert losses[name].item() == pytest.approx(value.item(), abs=1e-10), (k, name)
        for name, network in networks.items():
            for key, parameter in network.named_parameters():
                torch.testing.assert_close(step.networks[name].get_parameter(key), parameter, rtol=0, atol=1e-10)


def seen_as(numbers: Tensor, augment: Augment, image: Tensor, pair: int, view: int) -> Tensor:
    return augment(image, numbers[pair : pair + 1, view])


def test_a_rate_of_their_own_moves_the_discriminators_alone():
    ends = []
    for rate in (None, 1e-3, 4e-3):
        step = TrainingStep(
            model(),
            LossConfig(),
            OptimizerConfig(lr=1e-3, discriminator_lr=rate),
            StepConfig(**EXACT),
            seed=1,
            global_batch=2,
        )
        step(*batch_of(0), images_seen=0, lr=5e-4)
        assert step.optimizers["generators"].rate == 5e-4
        assert step.optimizers["discriminators"].rate == pytest.approx(5e-4 * (rate or 1e-3) / 1e-3, rel=1e-15)
        ends.append(everything(step))
    for name, tensor in ends[0].items():
        assert torch.equal(tensor, ends[1][name]), name
        if "weight" in name:
            assert torch.equal(tensor, ends[2][name]) == name.startswith(("generator", "ema")), name


def test_no_parameter_is_without_effect():
    """A bias before an instance norm would have a gradient of zero but for rounding."""
    step = training_step(nonlocal_gain=0.5, output="masked", attended=(0, 1))
    step(*batch_of(0), images_seen=0, lr=1e-3)
    for name, network in step.networks.items():
        for key, parameter in network.named_parameters():
            assert parameter.grad.abs().max() > 1e-12, f"{name}.{key}"


class Noting(Plain):
    """Notes each network that is called, and with how many images."""

    def __init__(self):
        self.passes = []

    def __call__(self, network, images):
        self.passes.append((network, len(images)))
        return super().__call__(network, images)


def test_identity_weight_0_skips_the_identity_images():
    step, noting = training_step(loss=LossConfig(identity=0)), Noting()
    player = step.players["generators"]
    player.compute = noting
    losses = step(*batch_of(0), images_seen=0, lr=1e-3)
    assert not [name for name in losses if name.startswith("identity")]
    assert [count for net, count in noting.passes if net is player.ab] == [2, 2]


def test_each_network_is_called_as_rarely_as_can_be():
    """Translation and identity images in one pass, then the way back; real and fake images in one pass."""
    step, noting = training_step(), Noting()
    names = {id(network): name for name, network in step.networks.items()}
    for player in step.players.values():
        player.compute = noting
    step(*batch_of(0), images_seen=0, lr=1e-3)
    assert [(names[id(network)], count) for network, count in noting.passes] == [
        ("generator_ab", 4), ("generator_ba", 4), ("discriminator_b", 2), ("discriminator_a", 2),
        ("generator_ba", 2), ("generator_ab", 2), ("discriminator_a", 4), ("discriminator_b", 4),
    ]  # fmt: skip


class NoReading(TorchDispatchMode):
    """Raises where a value or a number of values is asked for, which on a GPU is where the host would wait."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        waits = ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::is_nonzero", "aten::masked_select")
        if function.name() in waits:
            raise AssertionError(f"{function.name()} waits")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("optimizer", ["nadam", "adam"])
def test_nothing_in_the_step_waits_for_a_value(optimizer):
    config = {"pool_size": 3, "micro_batch": 1, "clip_norm": 1.0, "ema_half_life": 100}
    step = training_step(config, optimizer=optimizer)
    with NoReading():
        for k in range(3):
            losses = step(*batch_of(k), images_seen=2 * k, lr=1e-3)
        with pytest.raises(AssertionError, match="waits"):
            losses["generator_total"].item()


def test_two_parts_weighted_by_their_share_give_the_gradient_of_the_whole():
    """One process plays both ranks in turn; over the ranks gradients are summed."""
    config = {"precision": "fp64", "pool_size": 0}
    whole = training_step(config, batch=3)
    a, b = batch_of(0, 3)
    losses = whole(a, b, images_seen=0, lr=0.0)
    total, sums = None, dict.fromkeys(losses, 0.0)
    for rank, part in enumerate((slice(0, 2), slice(2, 3))):
        half = training_step(config, batch=3, rank=rank, world=2)
        for name, value in half(a[part], b[part], images_seen=0, lr=0.0).items():
            sums[name] += value.item()
        parts = gradients(half)
        total = parts if total is None else [t + g for t, g in zip(total, parts, strict=True)]
    assert sums == pytest.approx({name: value.item() for name, value in losses.items()}, abs=1e-12)
    for found, gradient in zip(total, gradients(whole), strict=True):
        torch.testing.assert_close(found, gradient, rtol=0, atol=1e-12)


def test_is_a_function_of_seed_and_images_seen():
    def weights(images_seen):
        step = training_step()
        for k in range(4):
            step(*batch_of(k), images_seen=images_seen + 2 * k, lr=1e-3)
        return torch.cat([p.flatten() for n in step.networks.values() for p in n.parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(2)), "the image pool's draws are keyed by the images seen"


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("half", "relative", "degrees"), [("bf16", 0.02, 25), ("fp16", 0.003, 10)])
def test_half_precision_follows_fp32(channels_last, half, relative, degrees):
    """The losses, and the direction of each player's gradient: bf16 keeps 8 bits of each product, fp16 11."""
    steps = {
        precision: training_step({"precision": precision, "channels_last": channels_last}, nonlocal_gain=0.5)
        for precision in ("fp32", half)
    }
    for _ in range(4):
        # In fp16 a scale is found first at which nothing overflows.
        losses = {p: step(*batch_of(0), images_seen=0, lr=0.0) for p, step in steps.items()}
    for name, value in losses["fp32"].items():
        assert losses[half][name].item() == pytest.approx(value.item(), rel=relative), name
    assert losses["fp32"]["cycle_a"] != losses[half]["cycle_a"]
    assert steps[half].finite
    for player in ("generators", "discriminators"):
        whole, short = (torch.cat([p.grad.flatten() for p in s.players[player].parameters()]) for s in steps.values())
        assert torch.cosine_similarity(whole, short, dim=0) > math.cos(math.radians(degrees)), player
        assert short.norm().item() == pytest.approx(whole.norm().item(), rel=0.1), player
        assert short.dtype == torch.float32


@pytest.mark.parametrize("optimizer", ["nadam", "adam"])
def test_in_fp16_a_step_that_overflows_is_skipped_and_the_scale_halved(optimizer):
    step = training_step({"precision": "fp16", "pool_size": 3, "ema_half_life": 10}, optimizer=optimizer)
    for k in range(2):
        step(*batch_of(k), images_seen=2 * k, lr=1e-3)
    before, scale = everything(step), step.loss_scales["generators"].scale.item()
    hook = broken(step.networks["generator_ab"], "gradient")
    losses = step(*batch_of(7), images_seen=4, lr=1e-3)
    after = everything(step)
    moved = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"discriminator_a", "discriminator_b", "discriminators"}
    assert losses["loss_scale_generators"] == scale / 2
    assert step.loss_scales["generators"].scale == scale / 2
    assert step.loss_scales["discriminators"].scale == scale
    assert step.finite
    hook.remove()
    step(*batch_of(8), images_seen=6, lr=1e-3)
    assert any(
        not torch.equal(value, after[name]) for name, value in everything(step).items() if "generator_ab" in name
    )


def test_in_fp16_what_no_scale_helps_against_stops_the_run():
    step = training_step({"precision": "fp16", "pool_size": 3})
    broken(step.networks["generator_ab"], "loss")
    for scale in step.loss_scales.values():
        assert scale.scale == 65_536
        # 12 of its 16 halvings on.
        scale.scale.fill_(16)
    for k in range(5):
        assert step.finite, k
        before = everything(step)
        step(*batch_of(k), images_seen=2 * k, lr=1e-3)
    # From 16 down to 1, and once more.
    assert not step.finite
    after = everything(step)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


def test_in_fp16_logits_beyond_its_numbers_do_no_harm():
    """Not scaled, they are sums of products over all channels."""
    block = NonLocalBlock(64, gain=1.0)
    for embedding in (block.theta, block.phi):
        embedding.weight.data.mul_(120)
    images = torch.randn(1, 64, 8, 8, generator=keyed_generator(3))
    logits = block.theta(images.flatten(2).mT) @ block.phi(images.flatten(2).mT).mT
    assert logits.abs().max() > 65_504
    with torch.autocast("cpu", torch.float16):
        out = block(images)
    # Rounded embeddings change which position wins here and there.
    assert (out.float() - block(images)).abs().mean() < 0.02


def broken(network: torch.nn.Module, kind: str):
    """Make a network's loss, or its gradient alone, not finite."""
    if kind == "loss":
        return network.register_forward_hook(lambda net, images, out: out * math.nan)
    last = list(network.parameters())[-1]
    return last.register_hook(lambda gradient: gradient * math.inf)


@pytest.mark.parametrize("optimizer", ["nadam", "adam"])
@pytest.mark.parametrize("kind", ["loss", "gradient"])
@pytest.mark.parametrize("warm", [0, 2])
def test_from_a_step_that_is_not_finite_on_nothing_moves(optimizer, kind, warm):
    step = training_step({"pool_size": 3, "ema_half_life": 10, "clip_norm": 1.0}, optimizer=optimizer)
    for k in range(warm):
        step(*batch_of(k), images_seen=2 * k, lr=1e-3)
    assert step.finite
    before = everything(step)
    hook = broken(step.networks["generator_ab"], kind)
    losses = step(*batch_of(7), images_seen=2 * warm, lr=1e-3)
    assert not step.finite
    assert math.isfinite(losses["gan_ab"]) == (kind == "gradient")
    hook.remove()
    step(*batch_of(8), images_seen=2 * warm + 2, lr=1e-3)
    after = everything(step)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert not step.finite


def test_generators_may_have_moved_before_the_discriminators_update():
    step = training_step()
    step(*batch_of(0), images_seen=0, lr=1e-3)
    before = everything(step)
    next(step.networks["discriminator_a"].parameters()).register_hook(lambda gradient: gradient * math.nan)
    step(*batch_of(1), images_seen=2, lr=1e-3)
    moved = {name.partition(".")[0] for name, value in everything(step).items() if not torch.equal(value, before[name])}
    assert moved == {"generator_ab", "generator_ba", "generators", "ema"}
    assert not step.finite


def test_clipping_shortens_the_gradient_of_a_player_as_a_whole():
    free, clipped = training_step(), training_step(EXACT | {"clip_norm": 0.5})
    for step in (free, clipped):
        step(*batch_of(0), images_seen=0, lr=0.0)
    for player in ("generators", "discriminators"):
        long, short = (torch.cat([p.grad.flatten() for p in s.players[player].parameters()]) for s in (free, clipped))
        expected = long * min(1.0, 0.5 / long.norm())
        torch.testing.assert_close(short, expected, rtol=1e-5, atol=1e-12)
    assert long.norm() > 0.5 or short.norm() == long.norm()
    generators = torch.cat([p.grad.flatten() for p in clipped.players["generators"].parameters()])
    assert generators.norm() == pytest.approx(0.5, rel=1e-5), "this one was longer"


def test_the_ema_follows_the_generators_by_its_half_life():
    step = training_step(EXACT | {"ema_half_life": 1})
    expected = {name: value.clone() for name, value in everything(step).items() if name.startswith("ema.")}
    assert not torch.equal(step.inference_generators["generator_ab"].encoder[0].weight, torch.zeros(()))
    for k in range(16):
        images_seen = 2 * (k + 1)
        step(*batch_of(k % 3), images_seen=2 * k, lr=1e-3)
        # At the start the half-life is 5 % of the images seen; from 20 images on it is 1 image.
        keep = 0.5 ** (2 / min(1, 0.05 * images_seen))
        for name, weight in everything(step).items():
            if f"ema.{name}" in expected:
                expected[f"ema.{name}"].mul_(keep).add_(weight, alpha=1 - keep)
    for name, value in everything(step).items():
        if name.startswith("ema."):
            torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-12)
            assert not torch.equal(value, dict(everything(step))[name.removeprefix("ema.")])


def test_without_an_ema_inference_uses_the_generators_in_training():
    step = training_step()
    assert step.ema is None
    assert step.inference_generators["generator_ba"] is step.networks["generator_ba"]


def test_all_pools_together_hold_pool_size():
    parts = [training_step({"pool_size": 50}, batch=4, rank=r, world=4).pools["a"].capacity for r in range(4)]
    assert sum(parts) == 50
    assert max(parts) - min(parts) <= 1


def test_pixels_survive_the_round_trip():
    pixels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(pixels)), pixels)
    assert to_uint8(torch.tensor([-2.0, 2.0])).tolist() == [0, 255]


def test_other_images_and_rates_are_refused_before_anything_moves():
    step, (a, b) = training_step(), batch_of(0)
    before = everything(step)
    for wrong in (a.float() / 127.5 - 1, a.numpy()):
        with pytest.raises(TypeError, match=r"real_a: expected a torch.uint8 tensor \[N, 3, H, W\]"):
            step(wrong, b, images_seen=0, lr=1e-3)
    for one, other in ((a, b[:1]), (a[:0], b[:0]), (a[..., 1:], b[..., 1:]), (a.permute(0, 2, 3, 1), b), (a[0], b[0])):
        with pytest.raises(ValueError, match="real_a"):
            step(one, other, images_seen=0, lr=1e-3)
    for rate in (-1e-3, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"lr {rate}: expected a finite rate"):
            step(a, b, images_seen=0, lr=rate)
    assert all(torch.equal(now, before[name]) for name, now in everything(step).items())


def test_a_step_is_not_copied_as_its_optimizers_would_be_incomplete():
    with pytest.raises(TypeError, match="copy its networks"):
        copy.deepcopy(training_step())
