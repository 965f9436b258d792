"""Every kernel on a GPU against plain PyTorch in fp64, at the network's sizes, and twice with equal bits."""

import pytest
import torch
from kernel_cases import (
    BIASES_GPU,
    BLOCKS_GPU,
    CONVOLUTIONS_GPU,
    DISCRIMINATORS,
    DISTANCES_GPU,
    GENERATOR_GPU,
    GENERATORS,
    NORMS_GPU,
    PADS_GPU,
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

pytestmark = pytest.mark.gpu
both_types = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


@both_types
@pytest.mark.parametrize("case", NORMS_GPU, ids=str)
def test_norm(case, dtype):
    check_norm("cuda", dtype, *case)


@both_types
@pytest.mark.parametrize("case", PADS_GPU, ids=str)
def test_pad(case, dtype):
    check_pad("cuda", dtype, *case)


@both_types
@pytest.mark.parametrize("case", CONVOLUTIONS_GPU, ids=str)
def test_convolution(case, dtype):
    check_convolution("cuda", dtype, *case)


@both_types
@pytest.mark.parametrize("shape", BIASES_GPU, ids=str)
def test_bias(shape, dtype):
    check_bias("cuda", dtype, *shape)


@both_types
@pytest.mark.parametrize("shape", DISTANCES_GPU, ids=str)
def test_distance(shape, dtype):
    check_distance("cuda", dtype, *shape)


@both_types
@pytest.mark.parametrize("case", BLOCKS_GPU, ids=str)
def test_nonlocal_block(case, dtype):
    check_block("cuda", dtype, *case)


@both_types
@pytest.mark.parametrize(("config", "shape"), [*GENERATORS, GENERATOR_GPU], ids=str)
def test_generator(config, shape, dtype):
    check_network("cuda", dtype, generator(**config), shape)


@both_types
@pytest.mark.parametrize(("config", "shape"), [*DISCRIMINATORS, ({}, (2, 64, 64))], ids=str)
def test_discriminator(config, shape, dtype):
    check_network("cuda", dtype, discriminator(**config), shape)


@pytest.mark.parametrize("name", ["nadam", "adam"])
def test_optimizer(name):
    check_optimizer("cuda", name, (4000, 70_001))


def test_average():
    check_average("cuda", 2, 4001)


def test_optimizer_in_two_graphs():
    """Each graph's replay moves along its own gradients, after the other was captured and others were used outside."""
    from nla_cyclegan.kernels.optimizer.update import Update

    parameter = torch.nn.Parameter(torch.zeros(10_000, device="cuda"))
    moments = torch.zeros_like(parameter), torch.zeros_like(parameter)
    update = Update([parameter], moments[:1], moments[1:], beta1=0.0, beta2=0.0)
    factors = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0], device="cuda")  # p -= gradient / eps
    applies = torch.ones((), dtype=torch.bool, device="cuda")

    def step(gradient: float) -> torch.Tensor:
        parameter.grad = torch.full_like(parameter, gradient * update.eps)
        gradients = update.gradients()
        update.apply(gradients, factors, applies)
        return update.grad_norm(gradients)

    step(1.0)
    graphs = []
    for gradient in (10.0, 100.0):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            norm = step(gradient)
        graphs.append((graph, norm))
    step(1000.0)
    torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, -1001.0))
    for graph, _ in graphs:
        graph.replay()
    torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, -1111.0))
    assert graphs[0][1].item() == pytest.approx(10 * update.eps * 100, rel=1e-5)
