"""What the kernels are compared with fp64 on: in the interpreter at small sizes, on a GPU at the network's.

A case is a function of a device and a type. It fails if a result or a gradient is further from that of plain PyTorch in fp64
than the type's tolerance, or if two runs on a GPU differ in a bit.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from nla_cyclegan.model.attention import NonLocalBlock
from nla_cyclegan.model.config import DiscriminatorConfig, GeneratorConfig
from nla_cyclegan.model.discriminator import PatchDiscriminator
from nla_cyclegan.model.generator import Generator
from nla_cyclegan.training.config import OptimizerConfig
from nla_cyclegan.training.optimizer.optim import make_optimizer

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
Leaf = tuple[Tensor, Tensor]  # the kernels' input, and the same numbers in fp64


def leaf(random: torch.Generator, device: str, dtype: torch.dtype, *shape: int, mean: float = 0.0) -> Leaf:
    """Random numbers in NHWC order and the same in fp64 on the CPU, both of which want gradients."""
    x = (torch.randn(shape, generator=random, dtype=torch.float64) + mean).to(dtype)
    if x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    return x.to(device).requires_grad_(), x.double().requires_grad_()


def distance(got: Tensor, want: Tensor) -> float:
    """Relative error in the L2 norm."""
    assert got.shape == want.shape
    return ((got.detach().cpu().double() - want).norm() / want.norm().clamp(min=1e-30)).item()


def compare(
    run: Callable[[], Sequence[Tensor]], want: Sequence[Tensor], leaves: Sequence[Leaf], random: torch.Generator, tolerance: float, *, repeats: bool = True
) -> None:  # fmt: skip
    """Results, and the gradients of a random linear function of them; both twice where their bits shall be equal."""
    got = run()
    seeds = [torch.randn(y.shape, generator=random, dtype=torch.float64).to(y.device, y.dtype) for y in got]
    grads = torch.autograd.grad(got, [x for x, _ in leaves], seeds)
    wanted = torch.autograd.grad(want, [x for _, x in leaves], [seed.cpu().double() for seed in seeds])
    for mine, reference in zip((*got, *grads), (*want, *wanted), strict=True):
        # Not "above": what is NaN has to fail, too.
        assert distance(mine, reference) < tolerance
    if not repeats or not got[0].is_cuda:  # one after the other, the programs of the interpreter repeat in any case
        return
    again = run()
    repeated = torch.autograd.grad(again, [x for x, _ in leaves], seeds)
    assert all(torch.equal(a, b) for a, b in zip((*got, *grads), (*again, *repeated), strict=True))


# [B, C, H, W], slope, padding, residual: odd sizes, one channel, more than a block of channels, padded up to the last pixel.
NORMS = [
    ((1, 3, 5, 7), 0.0, 1, False), ((2, 8, 9, 6), 0.0, 1, False), ((3, 5, 8, 8), 0.2, 0, False), ((1, 16, 12, 10), 1.0, 1, True),
    ((2, 4, 4, 4), 1.0, 3, True), ((2, 7, 11, 5), 0.0, 3, False), ((2, 6, 8, 7), 1.0, 0, True), ((1, 96, 7, 9), 0.2, 3, True),
    ((2, 1, 6, 6), 0.0, 1, False), ((3, 3, 2, 2), 0.0, 1, True), ((1, 2, 20, 18), 0.0, 3, False), ((1, 64, 16, 12), 1.0, 1, True),
]  # fmt: skip
NORMS_GPU = [
    *NORMS, ((2, 256, 64, 64), 0.0, 1, False), ((3, 256, 64, 64), 1.0, 1, True), ((2, 64, 256, 256), 0.0, 3, False), ((2, 128, 128, 128), 0.0, 0, False),
    ((2, 64, 70, 50), 0.0, 3, False), ((3, 5, 33, 31), 0.2, 1, True), ((2, 512, 31, 31), 0.2, 0, False), ((32, 256, 64, 64), 1.0, 1, True),
]  # fmt: skip


def away_from_the_bend(x: Leaf) -> Leaf:
    """With no value so near its channel's mean that rounding decides on which side of the activation's bend it is."""
    mine, reference = x
    with torch.no_grad():
        off = reference - reference.mean((2, 3), keepdim=True)
        reference += torch.where((off.abs() < 1e-4) & (off != 0), 3e-4 * off.sign(), 0.0)
        mine.copy_(reference)
        reference.copy_(mine)
    return x


def check_norm(
    device: str, dtype: torch.dtype, shape: Sequence[int], slope: float, pad: int, has_residual: bool
) -> None:
    from plain_kernels import norm_act_plain

    from nla_cyclegan.kernels.layers.norm import norm_act, norm_act_both

    random = torch.Generator().manual_seed(3)
    # Means far from 0, as a bright image gives them, so that a cancellation would show.
    x = away_from_the_bend(leaf(random, device, dtype, *shape, mean=15.0 if dtype == torch.float32 else 1.0))
    residual = leaf(random, device, dtype, *shape) if has_residual else None
    leaves = [x] if residual is None else [x, residual]
    mine, reference = [a for a, _ in leaves], [b for _, b in leaves]

    padded, plain = norm_act_plain(*reference, slope=slope, pad=pad)
    compare(lambda: (norm_act(*mine, slope=slope, pad=pad),), (padded,), leaves, random, TOLERANCE[dtype])
    if pad:
        padded, plain = norm_act_plain(*reference, slope=slope, pad=pad)
        compare(lambda: norm_act_both(*mine, slope=slope, pad=pad), (padded, plain), leaves, random, TOLERANCE[dtype])
        # A gradient comes to one of the two alone.
        padded, plain = norm_act_plain(*reference, slope=slope, pad=pad)
        compare(lambda: norm_act_both(*mine, slope=slope, pad=pad)[1:], (plain,), leaves, random, TOLERANCE[dtype])


# [B, C, H, W], padding, channels of the result.
PADS = [((1, 3, 8, 9), 3, 4), ((2, 8, 6, 5), 1, 8), ((2, 3, 4, 4), 3, 3), ((1, 70, 5, 6), 1, 70), ((1, 1, 2, 3), 1, 4)]
PADS_GPU = [*PADS, ((4, 3, 256, 256), 3, 4), ((2, 256, 64, 64), 1, 256)]


def check_pad(device: str, dtype: torch.dtype, shape: Sequence[int], pad: int, channels: int) -> None:
    from plain_kernels import reflect_pad_plain

    from nla_cyclegan.kernels.layers.pad import reflect_pad

    random = torch.Generator().manual_seed(4)
    x = leaf(random, device, torch.float32, *shape)
    want = reflect_pad_plain(x[1], pad, channels=channels)
    compare(lambda: (reflect_pad(x[0], pad, channels=channels, dtype=dtype),), (want,), [x], random, TOLERANCE[dtype])


# B, channels in and out, H, W of the result, whether the weights lie in NHWC order.
CONVOLUTIONS = [
    (1, 3, 5, 6, 7, True), (2, 3, 16, 8, 8, False), (1, 4, 20, 5, 9, True), (1, 1, 8, 3, 4, True),
    (2, 8, 3, 9, 6, True), (1, 17, 3, 4, 10, False), (1, 24, 1, 5, 5, True), (2, 8, 4, 5, 6, True),
]  # fmt: skip
CONVOLUTIONS_GPU = [
    *CONVOLUTIONS, (2, 3, 64, 256, 256, True), (2, 64, 3, 256, 256, True), (2, 3, 64, 40, 33, True), (2, 64, 3, 40, 33, True),
    (1, 3, 128, 40, 40, True), (1, 128, 3, 40, 40, True),
]  # fmt: skip


def check_convolution(device: str, dtype: torch.dtype, b: int, ci: int, co: int, h: int, w: int, nhwc: bool) -> None:
    from plain_kernels import conv7_plain

    from nla_cyclegan.kernels.layers.conv7 import conv7_to_few, conv7_to_many

    random = torch.Generator().manual_seed(5)
    x = leaf(random, device, dtype, b, ci, h + 6, w + 6)
    # fp32 weights of numbers that bf16 holds, so that the rounding on the way is none.
    values = torch.randn((co, ci, 7, 7), generator=random).to(dtype).float().to(device)
    if nhwc:
        values = values.contiguous(memory_format=torch.channels_last)
    weight = values.requires_grad_(), values.detach().cpu().double().requires_grad_()
    if ci < co:
        want = conv7_plain(x[1], weight[1])
        compare(lambda: (conv7_to_many(x[0], weight[0]),), (want,), [x, weight], random, TOLERANCE[dtype])
        return
    bias = leaf(random, device, torch.float32, co)
    want = conv7_plain(x[1], weight[1], bias[1])
    compare(lambda: (conv7_to_few(x[0], weight[0], bias[0]),), (want,), [x, weight, bias], random, TOLERANCE[dtype])


# [B, C, H, W]: in one part, and in several.
BIASES = [(2, 8, 5, 6), (1, 24, 3, 4), (2, 64, 40, 33)]
BIASES_GPU = [*BIASES, (32, 64, 128, 128), (3, 128, 33, 31)]


def check_bias(device: str, dtype: torch.dtype, *shape: int) -> None:
    from nla_cyclegan.kernels.layers.bias import bias_act

    random = torch.Generator().manual_seed(7)
    x = leaf(random, device, dtype, *shape)
    bias = leaf(random, device, torch.float32, shape[1])
    for leaves, mine in (([x, bias], bias[0]), ([x], bias[0].detach())):
        want = nn.functional.leaky_relu(x[1] + bias[1][:, None, None], 0.2)
        # In the memory of its input, which a leaf would forbid.
        compare(lambda mine=mine: (bias_act(x[0] * 1, mine, slope=0.2),), (want,), leaves, random, TOLERANCE[dtype])


DISTANCES = [(2, 1, 3, 5), (1, 3, 40, 40)]
DISTANCES_GPU = [*DISTANCES, (16, 3, 256, 256), (32, 1, 30, 30)]


def check_distance(device: str, dtype: torch.dtype, *shape: int) -> None:
    from nla_cyclegan.kernels.layers.losses import l1, lsgan

    random = torch.Generator().manual_seed(8)
    x = leaf(random, device, dtype, *shape)
    reference = torch.randn(shape, generator=random)
    with torch.no_grad():  # equal pixels, whose gradient is 0
        reference[..., 0] = x[1][..., 0].float()
    want = nn.functional.l1_loss(x[1], reference.double())
    compare(lambda: (l1(x[0], reference.to(device)),), (want,), [x], random, TOLERANCE[dtype])
    for target in (0.0, 1.0):
        want = (x[1] - target).square().mean()
        compare(lambda target=target: (lsgan(x[0], target),), (want,), [x], random, TOLERANCE[dtype])


# [B, C, H, W], logits scaled.
BLOCKS = [((2, 8, 3, 4), False), ((1, 16, 5, 2), True)]
BLOCKS_GPU = [*BLOCKS, ((2, 256, 64, 64), True), ((3, 64, 20, 12), False)]


def check_block(device: str, dtype: torch.dtype, shape: Sequence[int], scaled: bool) -> None:
    """A non-local block between other functions, its weights in two passes; with a gain, without one, and with some frozen."""
    from nla_cyclegan.kernels.cast import cast_weights
    from nla_cyclegan.kernels.layers.attention import nonlocal_block

    random = torch.Generator().manual_seed(9)
    for gain, frozen in (
        (0.5, ()),
        ("fixed", ()),
        (0.5, ("theta.weight", "gain")),
        (0.5, ("phi.weight", "w_z.weight")),
    ):
        network = nn.ModuleDict({"block": NonLocalBlock(shape[1], scaled=scaled, gain=gain)})  # type: ignore[arg-type]
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.dim():
                    # Small ones: a softmax of large logits makes much of their rounding.
                    values = torch.randn(parameter.shape, generator=random) / 2 * shape[1] ** -0.5
                    parameter.copy_(values.to(dtype).float())
        for name, parameter in network["block"].named_parameters():
            parameter.requires_grad_(name not in frozen)
        reference = copy.deepcopy(network).double()
        network.to(device)
        x = leaf(random, device, dtype, *shape)
        of_network = zip(network.parameters(), reference.parameters(), strict=True)
        leaves = [x, *(pair for pair in of_network if pair[0].requires_grad)]

        def run(network: nn.ModuleDict = network, x: Leaf = x) -> tuple[Tensor]:
            y, scale = x[0] * 1, network["block"].scale
            for weights in cast_weights(network, dtype):
                assert weights["block.qkv"].requires_grad
                # A gradient that is nobody else's, as a convolution's.
                y = nonlocal_block(y, weights["block.qkv"], weights["block.z"], scale) * 1
            return (y,)  # type: ignore[return-value]

        want = reference["block"](reference["block"](x[1] * 1))
        # The attention of PyTorch repeats its bits in its deterministic mode alone, as the tests of the step show.
        compare(run, (want,), leaves, random, 2 * TOLERANCE[dtype], repeats=False)


GENERATORS = [
    ({"base_channels": 8, "num_blocks": 3, "nonlocal_blocks": (1,)}, (1, 8, 12)),
    ({"base_channels": 8, "num_blocks": 1, "nonlocal_blocks": (0,), "nonlocal_scaled": True}, (1, 8, 8)),
    ({"base_channels": 8, "num_blocks": 0, "nonlocal_blocks": ()}, (2, 8, 8)),
    ({"base_channels": 8, "num_blocks": 2, "nonlocal_blocks": (0,), "nonlocal_pooled": True}, (1, 8, 12)),
    (
        {"base_channels": 8, "num_blocks": 2, "nonlocal_blocks": "all", "nonlocal_gain": "fixed", "output": "masked"},
        (1, 8, 8),
    ),
]
DISCRIMINATORS = [
    ({"base_channels": 8}, (2, 32, 40)), ({"base_channels": 8, "num_layers": 2}, (2, 16, 18)),
    ({"base_channels": 8, "num_layers": 2, "nonlocal_blocks": (0, 2), "nonlocal_gain": 0.5}, (2, 16, 18)),
]  # fmt: skip
GENERATOR_GPU = {"base_channels": 64, "num_blocks": 3, "nonlocal_blocks": (1,)}, (2, 64, 64)


def check_network(device: str, dtype: torch.dtype, network: nn.Module, shape: Sequence[int]) -> None:
    """Not further from fp64 than a few times what the plain modules are in the same type: some gradients are small differences."""
    from nla_cyclegan.kernels.networks import Fused

    random = torch.Generator().manual_seed(6)
    b, h, w = shape
    with torch.no_grad():
        for parameter in network.parameters():
            spread = 0.1 if parameter.dim() == 4 else 0.2
            parameter.copy_((torch.randn(parameter.shape, generator=random) * spread).to(dtype).float())
    network.to(memory_format=torch.channels_last)
    reference = copy.deepcopy(network).double()
    network.to(device)
    image = leaf(random, device, torch.float32, b, 3, h, w)
    leaves = [image, *zip(network.parameters(), reference.parameters(), strict=True)]
    want = reference(image[1])
    with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
        plain = network(image[0])
    fused = Fused(dtype)
    fused.cast([network])
    got = fused(network, image[0])
    seed = torch.randn(want.shape, generator=random, dtype=torch.float64)
    wanted = [want, *torch.autograd.grad(want, [x for _, x in leaves], seed)]
    off = {}
    for name, y in (("plain", plain), ("fused", got)):
        grads = torch.autograd.grad(y, [x for x, _ in leaves], seed.to(y.device, y.dtype))
        off[name] = [distance(a, w) for a, w in zip((y, *grads), wanted, strict=True)]
    assert max(off["fused"]) < max(4 * max(off["plain"]), TOLERANCE[dtype])


def generator(**config: object) -> Generator:
    return Generator(GeneratorConfig(**{"nonlocal_gain": 0.5} | config))  # type: ignore[arg-type]


def discriminator(**config: object) -> PatchDiscriminator:
    return PatchDiscriminator(DiscriminatorConfig(**config))  # type: ignore[arg-type]


def check_optimizer(device: str, name: str, widths: Sequence[int]) -> None:
    """Four steps beside the training's plain optimizer, the third of them held back because gradients are NaN; two are clipped."""
    random = torch.Generator().manual_seed(10)
    plain = [
        torch.randn(shape, generator=random).to(device).to(memory_format=torch.channels_last)
        for shape in ((widths[0], 3, 3, 3), (1, widths[0], 3, 3))
    ] + [torch.randn(n, generator=random).to(device) for n in (1, 3, widths[1])]
    plain = [nn.Parameter(values) for values in plain]
    mine = copy.deepcopy(plain)
    config = OptimizerConfig(name=name)  # type: ignore[arg-type]
    flags = [torch.ones((), dtype=torch.bool, device=device) for _ in range(2)]
    reference, fused = (
        make_optimizer(config, parameters, applies, fused=parameters is mine)
        for parameters, applies in zip((plain, mine), flags, strict=True)
    )
    for step in range(4):
        held = step == 2
        for applies in flags:
            applies.fill_(True)
        for p, q in zip(plain, mine, strict=True):
            p.grad = torch.empty_like(p).copy_(torch.randn(p.shape, generator=random) * (torch.nan if held else 1))
            q.grad = p.grad.clone()
        assert fused._update is not None
        norm = torch.nn.utils.get_total_norm([q.grad.double() for q in mine])
        found = fused._update.grad_norm(fused._update.gradients())
        torch.testing.assert_close(found.double(), norm, equal_nan=True, rtol=1e-6, atol=0)
        for optimizer in (reference, fused):
            optimizer.rate.fill_(1e-3 / (step + 1))
            optimizer.clipped_step(None if step == 0 else 0.5 * 10**step)
        assert [applies.item() for applies in flags] == [not held, not held]
        for p, q in zip(plain, mine, strict=True):
            torch.testing.assert_close(q, p, rtol=2e-6, atol=1e-8)
            for key, kept in reference.state[p].items():
                # Of a first moment of opposite terms little but their rounding may be left.
                atols = {"exp_avg": 1e-7, "exp_avg_sq": 1e-12}
                rtol, atol = (1e-6, atols[key]) if key in atols else (1e-14, 0)
                torch.testing.assert_close(fused.state[q][key], kept, rtol=rtol, atol=atol)


def check_average(device: str, *widths: int) -> None:
    """Two updates beside the training's plain ones, and one held back."""
    from nla_cyclegan.training.optimizer.ema import EMA

    random = torch.Generator().manual_seed(11)
    network = nn.ModuleDict({str(n): nn.Conv2d(n, 3, 3) for n in widths}).to(device, memory_format=torch.channels_last)
    applies = torch.ones((), dtype=torch.bool, device=device)
    averages = [EMA({"network": network}, 30, applies, fused=fused) for fused in (False, True)]
    for step, held in enumerate((False, False, True)):
        applies.fill_(not held)
        for parameter in network.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=random))
        kept = [parameter.clone() for parameter in averages[1].networks["network"].parameters()]
        for each in averages:
            each.set_rate(1000 + 4 * step, 4)
            each.update()
        plain, mine = ([*each.networks["network"].parameters()] for each in averages)
        for p, q, before in zip(plain, mine, kept, strict=True):
            torch.testing.assert_close(q, p, rtol=2e-6, atol=1e-7)
            assert torch.equal(q, before) == held
