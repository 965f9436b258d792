import pytest
import textbook
import torch

from nla_cyclegan import OptimizerConfig, ScheduleConfig, learning_rate, total_images
from nla_cyclegan.optim import make_optimizer


@pytest.mark.parametrize(("beta1", "momentum_decay"), [(0.5, 4e-3), (0.9, 0.1)])
def test_nadam_is_dozats(beta1, momentum_decay):
    config = OptimizerConfig(lr=0.01, beta1=beta1, momentum_decay=momentum_decay)
    start = torch.tensor([1.0, -2.0, 0.5], dtype=torch.double)
    gradients = torch.randn(12, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    weight = torch.nn.Parameter(start.clone())
    optimizer = make_optimizer(config, [weight])
    course = []
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
        course.append(weight.detach().clone())
    expected = textbook.nadam(
        start, gradients.tolist(), lr=0.01, beta1=beta1, beta2=0.999, momentum_decay=momentum_decay
    )
    torch.testing.assert_close(torch.stack(course), torch.tensor(expected, dtype=torch.double), rtol=1e-7, atol=1e-9)


def test_adam_by_config():
    assert type(make_optimizer(OptimizerConfig(name="adam"), [torch.nn.Parameter(torch.zeros(1))])) is torch.optim.Adam


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
    assert learning_rate(1.0, ScheduleConfig(constant=1.0), 99, 100) == 1.0
