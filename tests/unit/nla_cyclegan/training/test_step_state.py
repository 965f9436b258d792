"""A training step that is saved and loaded goes on bit for bit."""

from pathlib import Path

import pytest
import torch
from test_step import batch_of, everything, training_step

EMA = {"precision": "fp32", "pool_size": 3, "ema_half_life": 8}


def take(step, numbers) -> None:
    for number in numbers:
        losses = step(*batch_of(number), images_seen=2 * number, lr=1e-3)
        assert len(losses) > 5


@pytest.mark.parametrize(("config", "optimizer"), [(EMA, "nadam"), ({"precision": "fp16", "pool_size": 0}, "adam")])
def test_a_saved_step_goes_on_as_if_nothing_had_happened(config: dict, optimizer: str, tmp_path: Path) -> None:
    step = training_step(config, optimizer=optimizer)
    take(step, range(2))
    torch.save(step.state_dict(), tmp_path / "step.pt")
    take(step, range(2, 3))
    # One that holds other values everywhere.
    other = training_step(config, optimizer=optimizer)
    take(other, range(7, 8))
    other.finite.fill_(False)
    other.load_state_dict(torch.load(tmp_path / "step.pt", weights_only=True))
    take(other, range(2, 3))
    assert bool(other.finite)
    for part, tensors in step.state_dict().items():
        assert tensors.keys() == other.state_dict()[part].keys()
        for key, value in tensors.items():
            assert torch.equal(value, other.state_dict()[part][key]), (part, key)
    for key, value in everything(step).items():
        assert torch.equal(value, everything(other)[key]), key


def test_a_state_of_another_configuration_is_refused_by_name() -> None:
    state = training_step(EMA, optimizer="adam").state_dict()
    with pytest.raises(ValueError, match="another configuration: training_generator_ab is not in this step; training_"):
        training_step({"precision": "fp32"}).load_state_dict(state)
    with pytest.raises(ValueError, match=r"optimizer_generators does not fit this step: '0\.mu_product'$"):
        training_step(EMA).load_state_dict(state)
    with pytest.raises(ValueError, match=r"generator_ab does not fit this step: .*size mismatch"):
        training_step(EMA, optimizer="adam", base_channels=8).load_state_dict(state)
