"""The scale of the loss in fp16: found by trial, on the device."""

import pytest
import torch

from nla_cyclegan.training.optimizer import loss_scale
from nla_cyclegan.training.optimizer.loss_scale import LossScale

GOOD, BAD = torch.tensor(1.0), torch.tensor(float("inf"))


def test_it_halves_where_a_step_overflows_and_doubles_after_good_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scale, "DOUBLES_AFTER", 3)
    scale = LossScale(torch.tensor(True))
    seen = []
    for norm in (BAD, BAD, GOOD, GOOD, BAD, GOOD, GOOD, GOOD, GOOD, GOOD, GOOD):
        scale.update(norm)
        assert scale.applies == norm.isfinite()
        seen.append(int(scale.scale.item()) / 2**16)
    assert seen == [1 / 2, 1 / 4, 1 / 4, 1 / 4, 1 / 8, 1 / 8, 1 / 8, 1 / 4, 1 / 4, 1 / 4, 1 / 2]


def test_at_the_lowest_scale_it_is_not_the_scale_and_nothing_changes_from_then_on() -> None:
    finite = torch.tensor(True)
    scale = LossScale(finite)
    for _ in range(16):
        scale.update(BAD)
    assert (scale.scale.item(), finite.item()) == (1.0, True)
    scale.update(GOOD)
    scale.update(torch.tensor(float("nan")))
    assert not finite
    kept = {name: value.clone() for name, value in scale.state().items()}
    scale.update(GOOD)
    assert not scale.applies
    assert all(torch.equal(value, scale.state()[name]) for name, value in kept.items())


def test_it_never_exceeds_the_highest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scale, "DOUBLES_AFTER", 1)
    scale = LossScale(torch.tensor(True))
    for _ in range(20):
        scale.update(GOOD)
    assert scale.scale == loss_scale.HIGHEST


def test_unscaling_is_exact() -> None:
    scale = LossScale(torch.tensor(True))
    gradients = [torch.randn(5), torch.randn(2, 3)]
    before = [gradient.clone() for gradient in gradients]
    scale.unscale([gradient.mul_(scale.scale) for gradient in gradients])
    assert all(torch.equal(one, two) for one, two in zip(before, gradients, strict=True))
