"""1e6 is a whole number for a person, whether a file, an option or a sweep has it."""

from pathlib import Path

import pytest

from cluster.settings.options import parse_options
from data_shards.command_line import whole_number
from data_shards.errors import UserError
from tuning.settings.options import parse_sweep

RUN = """\
name: 1e5
data: {uri: shards, global_batch: 1E1}
schedule.images: 1e6
step: {pool_size: 5.e1, ema_half_life: 1.0e4}
scaling: {workers: 1e0}
validation.every: 1e3
model.generator: {num_blocks: 1.2e1, nonlocal_gain: 1e-1}
"""
SWEEP = """\
train: {run}
trials: 1e2
budget.images: 1e7
asha: {{grace: 2e3}}
override: {{schedule.images: 1e5, optimizer.lr: 1e-4}}
space: {{step.pool_size: {{choice: [1e1, 20]}}, step.ema_half_life: {{grid: [1e3, 2.5e3]}}}}
"""


@pytest.fixture
def run(tmp_path: Path) -> str:
    (tmp_path / "run.yaml").write_text(RUN)
    return str(tmp_path / "run.yaml")


def test_in_a_file_and_on_the_command_line(run: str) -> None:
    config = parse_options(["--config", run, "--seed", "1e3", "--step.ema_half_life=2.5e4"]).config
    # A name is text.
    assert (config.name, config.seed, config.schedule.images, config.validation.every) == ("1e5", 1000, 10**6, 1000)
    assert (config.step.pool_size, config.step.ema_half_life, config.data.global_batch) == (50, 25_000, 10)
    assert (config.scaling.workers, config.model.generator.num_blocks) == (1, 12)
    with pytest.raises(UserError, match=r"schedule\.images: .* valid integer.*; got '1.5e0' on the command line"):
        parse_options(["--config", run, "--schedule.images", "1.5e0"])


def test_in_a_sweep(run: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP.format(run=run))
    options = parse_sweep(["--config", str(tmp_path / "sweep.yaml"), "--pbt.interval", "3e3"])
    config = options.config
    assert (config.trials, config.budget.images, config.asha.grace, config.pbt.interval) == (100, 10**7, 2000, 3000)
    assert options.base.schedule.images == 10**5
    assert (options.space["step.pool_size"].choice, options.space["step.ema_half_life"].grid) == (
        [10, 20],
        [1000, 2500],
    )


@pytest.mark.parametrize("text", ["1e-1", "1.5e0", "e3", "1e", "1e3000", "0x10", "1 e3", ""])
def test_what_is_no_whole_number(text: str) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        whole_number(text)
