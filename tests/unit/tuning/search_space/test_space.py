import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import yaml
from pydantic import ValidationError

from cluster.settings.config import RunConfig
from cluster.settings.options import field_names
from data_shards.errors import UserError
from tuning.search_space.misfits import misfits
from tuning.search_space.placement import NAMES, placements
from tuning.search_space.space import (
    Dimension,
    Space,
    as_grid,
    count,
    default_space,
    override,
    sample,
    value_of,
    without_names,
)
from tuning.settings.options import Options, as_options, parse_sweep, presets

ROOT = Path(__file__).parents[4]


@pytest.fixture
def base(tmp_path: Path) -> RunConfig:
    return tiny.config("shards", tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A sweep over the tiny run."""
    run = tiny.settings("shards", tmp_path, validation={"every": 16, "images": 4})
    (tmp_path / "run.yaml").write_text(json.dumps(run))
    sweep = {"name": "few", "train": str(tmp_path / "run.yaml"), "space": {"optimizer.beta1": {"choice": [0.5, 0.9]}}}
    (tmp_path / "sweep.yaml").write_text(json.dumps(sweep))
    return tmp_path / "sweep.yaml"


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
    assert misfits(default, config) == []
    assert {value_of(config.model_dump(mode="json"), field) is not None for field in default} == {True}


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
    assert misfits(both, base) == []
    assert without_names(both, 2) == both
    trial = override(base, {"model.generator.num_blocks": blocks, "model.generator.nonlocal_blocks": "late"})
    assert trial.model.generator.nonlocal_blocks == (blocks - 1,)
    alone = {field: both[field] for field in ["model.generator.nonlocal_blocks"]}
    assert without_names(alone, 2)["model.generator.nonlocal_blocks"].choice == [[1], [0]]


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
        ("step.pool_size", {"uniform": [1, 50]}, "valid integer"),
        ("model.generator.nonlocal_blocks", {"choice": [[0], [7]]}, "has [7], outside the blocks; allowed: 0 to 1"),
        ("model.generator.nonlocal_blocks", {"choice": ["midle"]}, "no such placement; allowed: none, early, middle"),
    ],
)
def test_what_does_not_fit_a_run(base: RunConfig, field: str, dimension: dict[str, Any], said: str) -> None:
    (line,) = misfits({field: Dimension.model_validate(dimension)}, base)
    assert line.startswith(f"space.{field}: ")
    assert said in line


def test_candidates_that_only_clash_together_are_refused(base: RunConfig) -> None:
    clash = {"model.generator.num_blocks": {"choice": [9, 4]}, "model.generator.nonlocal_blocks": {"grid": [[1], [6]]}}
    (line,) = misfits({field: Dimension.model_validate(each) for field, each in clash.items()}, base)
    assert line.startswith("space: model.generator.num_blocks 4 with model.generator.nonlocal_blocks [6]: ")


def test_candidates_need_not_fit_the_runs_own_values(base: RunConfig) -> None:
    # The run has its non-local block at 1, which a network of one block has not.
    fitting = {
        "model.generator.num_blocks": {"choice": [1, 3]},
        "model.generator.nonlocal_blocks": {"choice": [[0], []]},
    }
    assert misfits({field: Dimension.model_validate(each) for field, each in fitting.items()}, base) == []


def parse(*arguments: str) -> Options:
    return parse_sweep(arguments)


def problems(*arguments: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        parse_sweep(arguments)
    return str(caught.value).splitlines()


def test_options_are_the_sweeps_or_else_its_runs(file: Path) -> None:
    options = parse("--config", str(file), "--seed", "5", "--trials=3", "--optimizer.lr", "0.01", "--dry-run")
    assert (options.config.seed, options.config.trials, options.config.name) == (5, 3, "few")
    assert (options.base.optimizer.lr, options.base.seed, options.base.name) == (0.01, 0, "tiny")
    assert options.dry_run
    stopping = json.loads(file.read_text()) | {"scheduler": "asha"}
    file.write_text(json.dumps(stopping))
    assert parse("--config", str(file)).config.scheduler == "asha"
    assert parse("--config", str(file), "--scheduler", "none").config.scheduler == "none"


def test_overrides_stand_between_the_runs_file_and_the_command_line(file: Path) -> None:
    wanted = {"optimizer.lr": 0.03, "model.generator.nonlocal_blocks": [0], "seed": 8, "scaling.workers": None}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"override": wanted}))
    base = parse("--config", str(file), "--optimizer.lr", "0.04").base
    assert (base.optimizer.lr, base.model.generator.nonlocal_blocks, base.seed) == (0.04, (0,), 8)
    assert as_options({"a.b": True, "c": "x y", "d": []}, ["--c=1"]) == ["--a.b=true", "--d=[]"]


def test_a_space_on_the_command_line_stands_instead_of_the_files(file: Path) -> None:
    options = parse("--config", str(file), "--space", '{"optimizer.lr": {"grid": [0.001, 0.002]}}')
    assert list(options.space) == ["optimizer.lr"]


def test_without_a_space_the_default_one_is_searched(file: Path) -> None:
    content = json.loads(file.read_text())
    del content["space"]
    file.write_text(json.dumps(content))
    assert parse("--config", str(file)).space == default_space(2)


def test_everything_that_is_wrong_with_a_sweep_is_said_at_once(file: Path) -> None:
    lines = problems(
        "--config", str(file), "--trials", "0", "--data.crop_size", "30", "--nmae", "x",
        "--space", '{"optimizer.lr": {"uniform": [1, 0]}}',
    )  # fmt: skip
    assert len(lines) == 4
    for line in ("trials: ", "data.crop_size: must be", "--nmae: no such option", "space.optimizer.lr: an empty range"):
        assert [found for found in lines if found.startswith(line)], line


def test_what_a_sweep_cannot_do_is_refused(file: Path) -> None:
    common = ["--config", str(file), "--validation.every", "none", "--local", "--search", "grid"]
    lines = problems(*common, "--space", '{"optimizer.lr": {"uniform": [0.1, 0.2]}}')
    assert [line.split(":")[0] for line in lines] == ["space.optimizer.lr", "validation.every", "--local"]


def test_a_sweep_without_a_run_is_refused(tmp_path: Path) -> None:
    assert "train: required; give it as --train or in the file" in problems("--data.uri", "shards")
    assert problems("--train", "nowhere.yaml") == ["--config nowhere.yaml: cannot be read (No such file or directory)"]


def test_a_search_takes_what_it_can(file: Path) -> None:
    grid = ["--space", '{"optimizer.lr": {"grid": [0.1, 0.2]}}']
    assert (
        "a grid is tried as a whole, and optuna draws"
        in problems("--config", str(file), "--search", "optuna", *grid)[0]
    )
    assert parse("--config", str(file), "--search", "optuna").config.search == "optuna"


def test_a_population_changes_numbers_of_the_training_alone(file: Path) -> None:
    common = ["--config", str(file), "--scheduler", "pbt"]
    both = '{"optimizer.lr": {"loguniform": [0.001, 0.1]}, "seed": {"choice": [1, 2]}, "optimizer.name": {"choice": ["adam"]}}'
    lines = problems(*common, "--space", both, "--search", "optuna", "--budget.images", "9")
    assert [line.partition(":")[0] for line in lines] == [
        "space.seed", "space.optimizer.name", "search", "budget.images",
    ]  # fmt: skip
    assert parse(*common, "--space", '{"loss.cycle": {"uniform": [1, 20]}}').config.pbt.quantile == 0.25


def test_a_kernel_distance_needs_weights(file: Path) -> None:
    (line,) = problems("--config", str(file), "--objective.distance", "kid")
    assert line.startswith(
        "objective.distance: kid needs Inception weights; name their file with --validation.inception"
    )


def test_presets_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: Path) -> None:
    monkeypatch.chdir(tmp_path)
    options = parse("--preset", "placement", "--data.uri", "s3://bucket/shards", "--model.generator.num_blocks", "3")
    assert options.space["model.generator.nonlocal_blocks"].grid == [[], [0], [1], [2], [0, 1, 2]]
    small = parse("--preset", "paper", "--train", str(tmp_path / "run.yaml"), "--validation.every", "8")
    assert (small.base.data.crop_size, small.base.validation.every) == (16, 8)
    assert problems("--preset", "papers") == ["--preset papers: no such preset; allowed: demo, paper, placement"]
    assert "give either --config or --preset" in problems("--preset", "paper", "--config", str(file))[0]


def test_the_papers_comparisons() -> None:
    options = parse("--preset", "paper", "--data.uri", "shards")
    trials = [sample(options.space, 0, number) for number in range(count(options.space, options.config.trials))]
    assert len(trials) == 2 * 2 * 3
    combinations = {(t["optimizer.name"], str(t["model.generator.nonlocal_blocks"]), t["seed"]) for t in trials}
    assert combinations == {(n, b, s) for n in ("adam", "nadam") for b in ("[]", "[4]") for s in (0, 1, 2)}
    assert (options.config.scheduler, options.base.optimizer.lr) == ("none", 2e-4)


@pytest.mark.parametrize("name", presets())
def test_each_field_of_the_presets_is_one_of_a_run(name: str) -> None:
    options = parse("--preset", name, "--data.uri", "shards")
    for number in range(count(options.space, options.config.trials)):
        overrides = sample(options.space, 0, number)
        config = override(options.base, overrides).model_dump(mode="json")
        assert {field: value_of(config, field) for field in overrides} == overrides
    assert options.config.override.keys() <= set(field_names(RunConfig))
    assert yaml.safe_load((ROOT / f"tuning/configs/{name}.yaml").read_text())["train"].startswith("cluster/configs/")
