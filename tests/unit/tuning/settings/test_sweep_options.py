import json
import shlex
from pathlib import Path

import pytest
import tiny
import yaml

from cluster.records.fields import flat
from cluster.settings.config import RunConfig
from cluster.settings.options import field_names
from data_shards.errors import UserError
from tuning.search_space.space import count, default_space, override, sample
from tuning.settings.options import Options, as_options, parse_sweep, presets
from tuning.submit import make_job

ROOT = Path(__file__).parents[4]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A sweep over the tiny run."""
    run = tiny.settings("shards", tmp_path, validation={"every": 16, "images": 4})
    (tmp_path / "run.yaml").write_text(json.dumps(run))
    sweep = {"name": "few", "train": str(tmp_path / "run.yaml"), "space": {"optimizer.beta1": {"choice": [0.5, 0.9]}}}
    (tmp_path / "sweep.yaml").write_text(json.dumps(sweep))
    return tmp_path / "sweep.yaml"


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


def test_a_run_file_that_a_sweeps_file_names_and_is_not_there(file: Path) -> None:
    file.write_text("name: few\ntrain: missing.yaml\n")
    assert problems("--config", str(file)) == [
        f"train in {file}: missing.yaml: cannot be read (No such file or directory)"
    ]


def test_labels_of_machines_are_overrides_too(file: Path) -> None:
    labels = {"ray.io/market-type": "!spot", "zone": "in(a,b)"}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"override": {"scaling": {"labels": labels}}}))
    options = parse("--config", str(file), "--scaling.labels.disk=ssd")
    assert options.base.scaling.labels == labels | {"disk": "ssd"}
    sent = make_job(["--config", str(file), "--storage", "s3://bucket", "--data.uri", "s3://data"]).command
    assert parse(*shlex.split(sent)[4:]).base.scaling.labels == labels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("override: {schedule: {images: 5}, schedule.images: 6}", "override.schedule.images is given twice, once with a dot, in lines 2 and 2"),
        ("space:\n  optimizer.lr: {choice: [1]}\n  optimizer:\n    lr: {uniform: [1, 2]}", "space.optimizer.lr is given twice, once with a dot, in lines 3 and 5"),
        ("override.optimizer: {lr: 1}\noverride: {optimizer.lr: 2}", "override.optimizer.lr is given twice, once with a dot, in lines 2 and 3"),
        ("optimizer: {lr: 1}", "optimizer: a field of the run in .*; write it below override"),
        ("optimizer.lr: 1", "optimizer: a field of the run in .*; write it below override"),
        ("override: {optimizer: {lrr: 1}}", "override.optimizer.lrr: no such field of a run; did you mean optimizer.lr?"),
        ("override: {step.compile: true}", "step.compile: torch.compile is gone"),
        ("space: {optimizer.lr: [1, 2]}", r"space.optimizer.lr: expected {loguniform: \[low, high\]}, .*; got \[1, 2\]"),
        ("space: {optimizer.lr: {quniform: [1, 2]}}", "space.optimizer.lr.quniform: expected {loguniform:"),
        ("trials: yes", "trials: input should be a valid integer, .*; got 'true'"),
    ],
)  # fmt: skip
def test_fields_that_a_sweeps_file_has_twice_or_in_the_wrong_place(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "sweep.yaml").write_text(f"train: cluster/configs/demo.yaml\n{text}\n")
    with pytest.raises(UserError, match=message):
        parse_sweep(["--config", str(tmp_path / "sweep.yaml")])


def test_a_run_in_the_place_of_its_file(file: Path) -> None:
    file.write_text("name: few\ntrain: {data: {uri: shards}}\n")
    lines = problems("--config", str(file), "--data.uri", "shards")
    assert lines == [
        "train: expected the name of a configuration file of `cluster train`; fields of the run go below override"
    ]


def test_fields_of_the_run_may_be_nested_in_the_sweeps_file(file: Path) -> None:
    nested = {
        "override": {"optimizer": {"lr": 0.03}, "schedule.images": 96},
        "space": {"optimizer": {"beta1": {"choice": [0.5, 0.9]}}, "loss.cycle": {"uniform": [5, 10]}},
        "budget.images": 600,
    }
    file.write_text(json.dumps(json.loads(file.read_text()) | nested))
    options = parse("--config", str(file))
    assert (options.base.optimizer.lr, options.base.schedule.images) == (0.03, 96)
    assert sorted(options.space) == ["loss.cycle", "optimizer.beta1"]
    assert options.config.budget.images == 600


def test_a_space_on_the_command_line_stands_instead_of_the_files(file: Path) -> None:
    options = parse("--config", str(file), "--space", '{"optimizer.lr": {"grid": [0.001, 0.002]}}')
    assert list(options.space) == ["optimizer.lr"]


def test_overrides_on_the_command_line_may_be_nested(file: Path) -> None:
    options = parse("--config", str(file), "--override", '{"schedule": {"images": 40}}')
    assert options.base.schedule.images == 40


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
    assert problems("--train", "nowhere.yaml") == ["--train nowhere.yaml: cannot be read (No such file or directory)"]


def test_a_search_takes_what_it_can(file: Path) -> None:
    grid = ["--space", '{"optimizer.lr": {"grid": [0.1, 0.2]}}']
    assert (
        "optuna draws values instead of trying a whole grid"
        in problems("--config", str(file), "--search", "optuna", *grid)[0]
    )
    assert parse("--config", str(file), "--search", "optuna").config.search == "optuna"
    fits = '{"data.fit": {"choice": ["stretch", "keep", "crop"]}}'
    assert parse("--config", str(file), "--space", fits).space["data.fit"].candidates == ["stretch", "keep", "crop"]


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
    assert problems("--preset", "papers") == [
        "--preset papers: no such preset; allowed: demo, demo-choice, paper, placement"
    ]
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
        assert {field: flat(config)[field] for field in overrides} == overrides
    assert options.config.override.keys() <= set(field_names(RunConfig))
    assert yaml.safe_load((ROOT / f"tuning/configs/{name}.yaml").read_text())["train"].startswith("cluster/configs/")
