"""The sum of gradients over the ranks: in tests/ranks by gloo, here by a stand-in for it."""

import pytest
import torch
from torch import Tensor, nn

from nla_cyclegan.training.optimizer import gradients
from nla_cyclegan.training.optimizer.gradients import GradientSum


class Begun:
    """Two ranks that have the same gradients; the sum is there once it was waited for."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def wait(self) -> None:
        self.values.mul_(2)


@pytest.fixture
def network(monkeypatch):
    """Two parameters to a bucket."""
    monkeypatch.setattr(gradients, "BUCKET_BYTES", 4 * 12)
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 3, 2), nn.Conv2d(3, 3, 2), nn.Conv2d(3, 3, 2)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def test_every_gradient_is_summed_once_in_buckets_of_one_order_during_the_backward(network):
    image, sent = torch.randn(1, 3, 8, 8), []
    network(image).sum().backward()
    alone = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()

    def all_reduce(values: Tensor) -> Begun:
        sent.append(len(values))
        return Begun(values)

    gradient_sum = GradientSum(network.parameters(), all_reduce)
    # A round before the last one: it only adds up.
    network(image).sum().backward()
    assert sent == []
    # With two rounds on two ranks, then with one.
    for factor in (4, 2):
        with gradient_sum.during():
            network(image).sum().backward()
        assert sent == [39, 39, 39]
        for parameter, gradient in zip(network.parameters(), alone, strict=True):
            torch.testing.assert_close(parameter.grad, factor * gradient)
            assert parameter.grad.stride() == parameter.stride()
        sent.clear()
        network.zero_grad()


def test_buckets_leave_before_the_backward_is_done(network):
    ready = []
    parameters = list(network.parameters())
    gradient_sum = GradientSum(
        parameters, lambda values: ready.append([p.grad is not None for p in parameters]) or Begun(values)
    )
    with gradient_sum.during():
        network(torch.randn(1, 3, 8, 8)).sum().backward()
    assert ready == [[False] * 4 + [True] * 2, [False] * 2 + [True] * 4, [True] * 6]


def test_a_parameter_without_a_gradient_is_an_error(network):
    gradient_sum = GradientSum([*network.parameters(), nn.Parameter(torch.ones(1))], Begun)
    with pytest.raises(RuntimeError, match="a parameter got no gradient"), gradient_sum.during():
        network(torch.randn(1, 3, 8, 8)).sum().backward()
