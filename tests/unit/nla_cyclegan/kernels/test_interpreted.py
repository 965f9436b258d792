"""Every kernel against plain PyTorch in fp64, through Triton's interpreter."""

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

from nla_cyclegan.kernels import average, many, norm, optimizer, pad

FP32, BF16 = torch.float32, torch.bfloat16


@pytest.mark.parametrize("case", NORMS, ids=str)
def test_norm(case):
    check_norm("cpu", FP32, *case)


@pytest.mark.parametrize(
    ("case", "tile"), [(NORMS[0], 64), (NORMS[2], 64), (NORMS[4], 64), (NORMS[7], 256), (NORMS[10], 8)], ids=str
)
def test_norm_in_many_tiles(case, tile, monkeypatch):
    """The last: more tiles than are added up at once."""
    for way in ("FORWARD", "BACKWARD"):
        monkeypatch.setattr(norm, way, (tile, 4, None))
    monkeypatch.setattr(pad, "ROW_TILE", 32)
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


@pytest.mark.parametrize(("config", "shape"), GENERATORS, ids=str)
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
    for module in (many, optimizer):
        monkeypatch.setattr(module, "CHUNK", 64)
    monkeypatch.setattr(optimizer, "BLOCK", 32)
    check_optimizer("cpu", name, (8, 37))


def test_average(monkeypatch):
    for module in (many, average):
        monkeypatch.setattr(module, "CHUNK", 64)
    monkeypatch.setattr(average, "BLOCK", 32)
    check_average("cpu", 2, 9)
