import math
from typing import get_args

import pytest
import textbook
import torch

from nla_cyclegan import OptimizerConfig, ScheduleConfig, learning_rate, total_images
from nla_cyclegan.training.optimizer.optim import Adam, Nadam, make_optimizer


def course(config: OptimizerConfig, steps: int = 12) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Start values, a gradient for each step, and the values after each step."""
    start = torch.tensor([1.0, -2.0, 0.5], dtype=torch.double)
    gradients = torch.randn(steps, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    weights = [torch.nn.Parameter(start[:2].clone()), torch.nn.Parameter(start[2].clone())]
    optimizer, values = make_optimizer(config, weights), []
    for gradient in gradients:
        weights[0].grad, weights[1].grad = gradient[:2].clone(), gradient[2].clone()
        optimizer.step()
        values.append(torch.cat([weight.detach().reshape(-1) for weight in weights]))
    return start, gradients, torch.stack(values)


@pytest.mark.parametrize(("beta1", "momentum_decay"), [(0.5, 4e-3), (0.9, 0.1), (0.5, 0.0), (0.0, 4e-3)])
def test_nadam_is_dozats(beta1, momentum_decay):
    start, gradients, values = course(OptimizerConfig(lr=0.01, beta1=beta1, momentum_decay=momentum_decay))
    expected = textbook.nadam(
        start, gradients.tolist(), lr=0.01, beta1=beta1, beta2=0.999, momentum_decay=momentum_decay
    )
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.double), rtol=0, atol=1e-13)


@pytest.mark.parametrize("beta1", [0.5, 0.9])
def test_adam_by_config(beta1):
    start, gradients, values = course(OptimizerConfig(name="adam", lr=0.01, beta1=beta1))
    expected = textbook.adam(start, gradients.tolist(), lr=0.01, beta1=beta1, beta2=0.999)
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.double), rtol=0, atol=1e-13)


@pytest.mark.parametrize(("name", "theirs"), [("nadam", torch.optim.NAdam), ("adam", torch.optim.Adam)])
def test_torchs_own_goes_the_same_way_and_takes_over_the_state(name, theirs):
    """fp32, 30 steps, then 5 more of each from the other's state."""
    config = OptimizerConfig(name=name, lr=0.01, momentum_decay=0.1)
    pair = [[torch.nn.Parameter(torch.ones(5, 3))], [torch.nn.Parameter(torch.ones(5, 3))]]
    more = {"momentum_decay": 0.1} if name == "nadam" else {}
    ours, other = make_optimizer(config, pair[0]), theirs(pair[1], lr=0.01, betas=(0.5, 0.999), **more)
    for step in range(35):
        gradient = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        for (weight,), optimizer in zip(pair, (ours, other), strict=True):
            weight.grad = gradient.clone()
            optimizer.step()
        if step == 29:
            assert ours.state[pair[0][0]].keys() == other.state[pair[1][0]].keys()
            for key, value in other.state[pair[1][0]].items():
                torch.testing.assert_close(ours.state[pair[0][0]][key].to(value.dtype), value)
    torch.testing.assert_close(pair[0][0], pair[1][0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["nadam", "adam"])
@pytest.mark.parametrize("taken", [0, 3])
def test_a_held_step_changes_nothing_and_the_next_goes_on_as_if_it_had_not_been(name, taken):
    applies = torch.tensor(True)
    weight, undisturbed = (torch.nn.Parameter(torch.ones(4)) for _ in range(2))
    config = OptimizerConfig(name=name, lr=0.01)
    held, free = make_optimizer(config, [weight], applies), make_optimizer(config, [undisturbed])

    def step(optimizer, parameter, gradient):
        parameter.grad = gradient
        optimizer.step()

    gradients = torch.randn(taken + 2, 4, generator=torch.Generator().manual_seed(0))
    for gradient in gradients[:taken]:
        step(held, weight, gradient.clone())
    before = {"weight": weight.detach().clone(), **{key: value.clone() for key, value in held.state[weight].items()}}
    applies.fill_(False)
    for bad in (math.nan, math.inf, 1.0):
        step(held, weight, torch.full((4,), bad))
    after = {"weight": weight, **held.state[weight]}
    assert [key for key in before if not torch.equal(before[key], after[key])] == []
    applies.fill_(True)
    for gradient in gradients[taken:]:
        step(held, weight, gradient.clone())
    for gradient in gradients:
        step(free, undisturbed, gradient.clone())
    assert torch.equal(weight, undisturbed)


def test_every_optimizer_has_a_formula_among_the_kernels():
    """kernels/optimizer updates as these two do: another one is made with fused=False, in `make_optimizer`, and added here."""
    names = get_args(OptimizerConfig.model_fields["name"].annotation)
    kinds = {type(make_optimizer(OptimizerConfig(name=name), [torch.nn.Parameter(torch.ones(1))])) for name in names}
    assert kinds == {Adam, Nadam}


def test_parameters_of_several_types_are_refused():
    weights = [torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1, dtype=torch.double))]
    with pytest.raises(ValueError, match=r"one type are needed; got torch\.float32 on cpu, torch\.float64 on cpu"):
        make_optimizer(OptimizerConfig(), weights)


def test_the_papers_schedule_is_constant_for_100_of_150_epochs_then_linear_to_0():
    schedule, epoch = ScheduleConfig(), 1000
    total = total_images(schedule, epoch, 1)
    assert total == 150_000
    at = {e: learning_rate(2e-4, schedule, e * epoch, total) for e in (0, 99, 100, 125, 150)}
    assert at == pytest.approx({0: 2e-4, 99: 2e-4, 100: 2e-4, 125: 1e-4, 150: 0.0})


def test_length_is_whole_global_batches():
    assert total_images(ScheduleConfig(images=10), 1000, 4) == 12
    assert total_images(ScheduleConfig(epochs=0.5), 1000, 8) == 504


def test_a_schedule_may_stay_constant_to_the_end():
    assert [learning_rate(1.0, ScheduleConfig(constant=1.0), seen, 100) for seen in (99, 100)] == [1.0, 1.0]


def test_there_is_no_rate_beyond_the_end():
    # A loop that goes on would climb the losses: the line goes on below 0.
    for seen in (-1, 101):
        with pytest.raises(ValueError, match=rf"images_seen {seen}: expected 0 to 100, the schedule's end"):
            learning_rate(1.0, ScheduleConfig(), seen, 100)
