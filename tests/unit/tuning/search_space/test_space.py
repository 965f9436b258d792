from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from pydantic import ValidationError

from cluster.records.fields import flat
from cluster.settings.config import RunConfig
from tuning.search_space.checks import space_problems
from tuning.search_space.space import (
    NAMES,
    Dimension,
    Space,
    as_grid,
    count,
    default_space,
    override,
    placements,
    sample,
    validated,
)


@pytest.fixture
def base(tmp_path: Path) -> RunConfig:
    return tiny.config("shards", tmp_path)


def space(**fields: dict[str, Any]) -> Space:
    return {field.replace("__", "."): Dimension.model_validate(dimension) for field, dimension in fields.items()}


MIXED = space(
    optimizer__lr={"loguniform": [1e-5, 1e-1]},
    optimizer__beta1={"uniform": [0.25, 0.75]},
    step__precision={"choice": ["fp32", "bf16"]},
    model__generator__nonlocal_blocks={"grid": [[], [0], [0, 1]]},
    loss__identity={"grid": [0, 0.5]},
)


def test_every_field_of_the_default_space_is_one_of_a_run() -> None:
    config = RunConfig.model_validate({"data": {"uri": "shards"}})
    default = default_space(config.model.generator.num_blocks)
    assert space_problems(default, config) == []
    assert {flat(config.model_dump(mode="json"))[field] is not None for field in default} == {True}


def test_draws_are_candidates() -> None:
    for number in range(60):
        drawn = sample(MIXED, 0, number)
        assert drawn.keys() == MIXED.keys()
        assert 1e-5 <= drawn["optimizer.lr"] <= 1e-1
        assert 0.25 <= drawn["optimizer.beta1"] <= 0.75
        assert drawn["step.precision"] in ("fp32", "bf16")


def test_ranges_are_drawn_from_evenly() -> None:
    lr = Dimension(loguniform=(1e-5, 1e-1))
    beta = Dimension(uniform=(0.25, 0.75))
    random = np.random.default_rng(0)
    logarithms = np.log10([lr.draw(random) for _ in range(4000)])
    assert np.quantile(logarithms, [0.25, 0.5, 0.75]) == pytest.approx([-4, -3, -2], abs=0.15)
    assert np.mean([beta.draw(random) for _ in range(4000)]) == pytest.approx(0.5, abs=0.01)


def test_a_trial_is_a_function_of_the_seed_and_its_number() -> None:
    assert sample(MIXED, 3, 7) == sample(MIXED, 3, 7)
    assert len({str(sample(MIXED, seed, 7)["optimizer.lr"]) for seed in range(20)}) == 20


def test_every_combination_of_the_grids_comes_once_with_each_draw_of_the_rest() -> None:
    trials = [sample(MIXED, 0, number) for number in range(count(MIXED, draws=4))]
    assert len(trials) == 4 * 3 * 2
    for draw in range(4):
        group = trials[6 * draw : 6 * draw + 6]
        grids = {(str(t["model.generator.nonlocal_blocks"]), t["loss.identity"]) for t in group}
        rest = {(t["optimizer.lr"], t["optimizer.beta1"], t["step.precision"]) for t in group}
        assert (len(grids), len(rest)) == (6, 1)
    assert len({trial["optimizer.lr"] for trial in trials}) == 4


def test_a_grid_alone_is_tried_once() -> None:
    grid = as_grid(space(step__precision={"choice": ["fp32", "bf16"]}, loss__identity={"grid": [0, 0.5]}))
    trials = [sample(grid, 0, number) for number in range(count(grid, draws=10))]
    assert sorted((t["step.precision"], t["loss.identity"]) for t in trials) == [
        ("bf16", 0), ("bf16", 0.5), ("fp32", 0), ("fp32", 0.5),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("blocks", "sets"),
    [
        (9, [[], [0], [4], [8], [0, 4, 8]]),
        (2, [[], [0], [1], [0, 1]]),
        (1, [[], [0]]),
        (0, [[]]),
    ],
)
def test_placements(blocks: int, sets: list[list[int]]) -> None:
    assert placements(list(NAMES), blocks) == sets


@pytest.mark.parametrize("blocks", [3, 9])
def test_named_placements_are_those_of_the_trials_own_number_of_blocks(base: RunConfig, blocks: int) -> None:
    varied = {
        "model.generator.num_blocks": {"choice": [3, 9]},
        "model.generator.nonlocal_blocks": {"choice": ["late", [0]]},
    }
    both = {field: Dimension.model_validate(each) for field, each in varied.items()}
    assert space_problems(both, base) == []
    assert validated(both, base)["model.generator.nonlocal_blocks"] == both["model.generator.nonlocal_blocks"]
    trial = override(base, {"model.generator.num_blocks": blocks, "model.generator.nonlocal_blocks": "late"})
    assert trial.model.generator.nonlocal_blocks == (blocks - 1,)
    alone = {field: both[field] for field in ["model.generator.nonlocal_blocks"]}
    assert validated(alone, base)["model.generator.nonlocal_blocks"].choice == [[1], [0]]


def test_candidates_are_what_the_records_of_trials_have(base: RunConfig) -> None:
    """YAML reads 1e-3 as text, and an option's placement is a list of a word."""
    written = space(
        optimizer__lr={"choice": ["1e-3", 0.001, "2e-3"]},
        model__generator__nonlocal_blocks={"grid": [["all"], "all", [1]]},
        model__generator__nonlocal_gain={"grid": [0, "fixed"]},
        optimizer__beta1={"uniform": (0.3, 0.9)},
    )
    known = validated(written, base)
    assert known["optimizer.lr"].choice == [0.001, 0.002]
    assert known["model.generator.nonlocal_blocks"].grid == [[0, 1], [1]]
    assert known["optimizer.beta1"] == written["optimizer.beta1"]
    assert validated(known, base) == known
    for number in range(count(known, draws=3)):
        overrides = sample(known, 0, number)
        stored = flat(override(base, overrides).model_dump(mode="json"))
        assert {field: stored[field] for field in overrides} == overrides


def test_what_the_paper_can_be_read_as_is_swept(base: RunConfig) -> None:
    varied = {
        "model.generator.nonlocal_blocks": {"choice": ["none", "all", [0]]},
        "model.generator.nonlocal_gain": {"grid": [0.0, "fixed"]},
        "model.generator.output": {"grid": ["image", "masked"]},
        "model.discriminator.nonlocal_blocks": {"choice": [[], [0, 1]]},
    }
    readings = {field: Dimension.model_validate(each) for field, each in varied.items()}
    assert space_problems(readings, base) == []
    assert validated(readings, base)["model.generator.nonlocal_blocks"].choice == [[], [0, 1], [0]]
    trials = [override(base, sample(readings, 0, number)).model for number in range(count(readings, draws=8))]
    assert len({str(trial.generator.nonlocal_gain) + trial.generator.output for trial in trials}) == 4
    assert {trial.discriminator.nonlocal_blocks for trial in trials} == {(), (0, 1)}
    wrong = {"model.discriminator.nonlocal_blocks": Dimension.model_validate({"choice": [[], [5]]})}
    (line,) = space_problems(wrong, base)
    assert "nonlocal_blocks has [5]; allowed with num_layers 1: 0 to 1" in line


def test_overrides_replace_fields_and_nothing_else(base: RunConfig) -> None:
    changed = override(base, {"optimizer.lr": "1e-3", "model.generator.nonlocal_blocks": [0, 1]})
    assert (changed.optimizer.lr, changed.model.generator.nonlocal_blocks) == (0.001, (0, 1))
    assert override(changed, {"optimizer.lr": 2e-4, "model.generator.nonlocal_blocks": [1]}) == base


@pytest.mark.parametrize(
    ("dimension", "said"),
    [
        ({"uniform": [2, 1]}, "an empty range: [2.0, 1.0]"),
        ({"loguniform": [1, 1]}, "an empty range"),
        ({"loguniform": [0, 1]}, "begins above 0"),
        ({"uniform": [0, float("inf")]}, "an empty range"),
        ({"choice": []}, "at least 1 item"),
        ({}, "exactly one of"),
        ({"grid": [1], "choice": [1]}, "exactly one of"),
        ({"normal": [0, 1]}, "Extra inputs"),
    ],
)
def test_dimensions_that_are_none(dimension: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Dimension.model_validate(dimension)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("field", "dimension", "said"),
    [
        ("optimizer.lrr", {"uniform": [1, 2]}, "no such field of a run; did you mean optimizer.lr?"),
        ("optimizer", {"choice": [1]}, "a section, not a field; allowed: optimizer.name, optimizer.lr"),
        ("data.crop_size", {"choice": [16]}, "must be the same for all trials"),
        ("validation.images", {"choice": [16]}, "must be the same for all trials"),
        ("optimizer.lr", {"loguniform": [1e-3, 10]}, "less than or equal to 1; got 10.0"),
        ("optimizer.beta1", {"choice": [0.5, "much"]}, "valid number, unable to parse string as a number; got 'much'"),
        ("step.pool_size", {"uniform": [1, 50]}, "fractional part; a range draws fractions: give {choice: [a, b]}"),
        ("lr", {"choice": [1]}, "no such field of a run; did you mean optimizer.lr?"),
        ("model.generator.nonlocal_blocks", {"choice": [[0], [7]]}, "has [7], outside the blocks; allowed: 0 to 1"),
        ("model.generator.nonlocal_blocks", {"choice": ["midle"]}, "no such placement; allowed: none, early, middle"),
    ],
)
def test_what_does_not_fit_a_run(base: RunConfig, field: str, dimension: dict[str, Any], said: str) -> None:
    (line,) = space_problems({field: Dimension.model_validate(dimension)}, base)
    assert line.startswith(f"space.{field}: ")
    assert said in line


def test_candidates_that_only_clash_together_are_refused(base: RunConfig) -> None:
    clash = {"model.generator.num_blocks": {"choice": [9, 4]}, "model.generator.nonlocal_blocks": {"grid": [[1], [6]]}}
    (line,) = space_problems({field: Dimension.model_validate(each) for field, each in clash.items()}, base)
    assert line.startswith("space: model.generator.num_blocks 4 with model.generator.nonlocal_blocks [6]: ")


def test_candidates_need_not_fit_the_runs_own_values(base: RunConfig) -> None:
    # The run has its non-local block at 1, which a network of one block has not.
    fitting = {
        "model.generator.num_blocks": {"choice": [1, 3]},
        "model.generator.nonlocal_blocks": {"choice": [[0], []]},
    }
    assert space_problems({field: Dimension.model_validate(each) for field, each in fitting.items()}, base) == []
