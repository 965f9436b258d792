"""Every kernel against plain PyTorch in fp64, through Triton's interpreter."""

from collections import Counter

import pytest
import torch
from kernel_cases import (
    BIASES,
    BLOCKS,
    CONVOLUTIONS,
    DISCRIMINATORS,
    DISTANCES,
    GENERATORS,
    NORMS,
    PADS,
    check_average,
    check_bias,
    check_block,
    check_convolution,
    check_distance,
    check_network,
    check_norm,
    check_optimizer,
    check_pad,
    discriminator,
    generator,
)
from torch.utils._python_dispatch import TorchDispatchMode

from nla_cyclegan.kernels import cast
from nla_cyclegan.kernels.layers import attention, norm, pad
from nla_cyclegan.kernels.optimizer import multi_tensor
from nla_cyclegan.model.attention import NonLocalBlock

FP32, BF16 = torch.float32, torch.bfloat16


@pytest.mark.parametrize("case", NORMS, ids=str)
def test_norm(case):
    check_norm("cpu", FP32, *case)


@pytest.mark.parametrize("fill", [4, 4000])
@pytest.mark.parametrize("case", [NORMS[0], NORMS[2], NORMS[4]], ids=str)
def test_norm_in_many_tiles(case, fill, monkeypatch):
    monkeypatch.setattr(norm, "TILE", 64)
    monkeypatch.setattr(pad, "ROW_TILE", 32)
    monkeypatch.setattr(norm, "FILL", fill)
    check_norm("cpu", FP32, *case)


@pytest.mark.parametrize("case", [NORMS[0], NORMS[2], NORMS[3]], ids=str)
def test_norm_in_bf16(case):
    check_norm("cpu", BF16, *case)


@pytest.mark.parametrize("dtype", [FP32, BF16])
@pytest.mark.parametrize("case", PADS, ids=str)
def test_pad(case, dtype):
    check_pad("cpu", dtype, *case)


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolution(case):
    check_convolution("cpu", FP32, *case)


@pytest.mark.parametrize("case", [CONVOLUTIONS[1], CONVOLUTIONS[4]], ids=str)
def test_convolution_in_bf16(case):
    check_convolution("cpu", BF16, *case)


@pytest.mark.parametrize("dtype", [FP32, BF16])
@pytest.mark.parametrize("shape", BIASES, ids=str)
def test_bias(shape, dtype):
    check_bias("cpu", dtype, *shape)


@pytest.mark.parametrize("dtype", [FP32, BF16])
@pytest.mark.parametrize("shape", DISTANCES, ids=str)
def test_distance(shape, dtype):
    check_distance("cpu", dtype, *shape)


@pytest.mark.parametrize("case", BLOCKS, ids=str)
def test_nonlocal_block(case):
    check_block("cpu", FP32, *case)


class Launches(TorchDispatchMode):
    """Counts what a GPU would compute: operators that give no view."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if not function.is_view and "empty" not in str(function) and "attention" not in str(function):
            self.counts[function.overloadpacket.__name__] += 1
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("gain", [0.5, "fixed"])
def test_a_nonlocal_block_leaves_its_sums_to_its_products(gain):
    network = torch.nn.ModuleDict({"block": NonLocalBlock(16, gain=gain)})
    x = torch.randn(2, 16, 4, 6).to(BF16, memory_format=torch.channels_last).requires_grad_()
    passes = cast.cast_weights(network, BF16)
    with Launches() as forward:
        y = attention.nonlocal_block(x, passes[0]["block.qkv"], passes[0]["block.z"], 1.0)
    assert forward.counts == {"mm": 1, "addmm": 1}
    leaves = [x, passes[0]["block.qkv"], passes[0]["block.z"]]
    with Launches() as backward:
        torch.autograd.grad(y, leaves, torch.ones_like(y))
    # Its three weight gradients and dy are three products; the gradients of q, k and v are put together once.
    assert backward.counts == {"ones_like": 1, "mm": 3, "addmm_": 1, "cat": 1}


def test_the_gradients_of_two_passes_are_added_at_once():
    network = generator(**GENERATORS[0][0])
    with Launches() as cast_once:
        passes = cast.cast_weights(network, BF16)
    assert cast_once.counts == {"_foreach_copy_": 1, "mul": 1}
    assert all(torch.equal(a, b) for a, b in zip(passes[0].values(), passes[1].values(), strict=True))
    outputs = [weight for each in passes for weight in each.values()]
    ones = [torch.ones_like(weight) for weight in outputs]
    with Launches() as back:
        grads = torch.autograd.grad(outputs, list(network.parameters()), ones)
    # One sum for each type; the gain's gradient takes two products and a sum.
    assert back.counts == {"_foreach_add": 2, "_foreach_copy_": 1, "mul": 2, "sum": 1}
    by_name = dict(zip(dict(network.named_parameters()), grads, strict=True))
    assert by_name["blocks.0.body.0.weight"].unique().tolist() == [2.0]
    assert by_name["blocks.1.theta.weight"].unique().tolist() == [2.0]
    assert by_name["blocks.1.w_z.weight"].unique().tolist() == [1.0]
    torch.testing.assert_close(by_name["blocks.1.gain"], 2 * network.blocks[1].w_z.weight.sum())


# With the first and the last all kernels run; the others are further configurations of the same ones.
@pytest.mark.parametrize(
    ("config", "shape"),
    [GENERATORS[0], *(pytest.param(*each, marks=pytest.mark.slow) for each in GENERATORS[1:-1]), GENERATORS[-1]],
    ids=str,
)
def test_generator(config, shape):
    check_network("cpu", FP32, generator(**config), shape)


@pytest.mark.parametrize(("config", "shape"), DISCRIMINATORS, ids=str)
def test_discriminator(config, shape):
    check_network("cpu", FP32, discriminator(**config), shape)


def test_networks_in_bf16():
    check_network("cpu", BF16, generator(**GENERATORS[0][0]), (2, 8, 8))
    check_network("cpu", BF16, discriminator(base_channels=8), (2, 32, 32))


@pytest.mark.parametrize("name", ["nadam", "adam"])
def test_optimizer(name, monkeypatch):
    monkeypatch.setattr(multi_tensor, "CHUNK", 64)
    monkeypatch.setattr(multi_tensor, "BLOCK", 32)
    check_optimizer("cpu", name, (8, 37))


def test_average(monkeypatch):
    monkeypatch.setattr(multi_tensor, "CHUNK", 64)
    monkeypatch.setattr(multi_tensor, "BLOCK", 32)
    check_average("cpu", 2, 9)
