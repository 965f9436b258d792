import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from pydantic import BaseModel

from cluster.settings.config import RunConfig, differences
from cluster.settings.options import parse_options
from data_shards.errors import UserError


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "run.yaml"
    # JSON is YAML.
    path.write_text(json.dumps(tiny.settings("shards", tmp_path, optimizer={"lr": 0.001, "beta1": 0.4})))
    return str(path)


def parse(*arguments: str) -> RunConfig:
    return parse_options(arguments).config


def problems(*arguments: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        parse_options(arguments)
    return str(caught.value).splitlines()


def leaves(model: type[BaseModel], prefix: str = "") -> dict[str, str | None]:
    found = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= leaves(field.annotation, f"{prefix}{name}.")
        else:
            found[prefix + name] = field.description
    return found


def test_options_win_over_the_file_field_by_field(file: str) -> None:
    config = parse("--config", file, "--optimizer.lr", "0.5", "--name=other")
    assert (config.name, config.optimizer.lr, config.optimizer.beta1) == ("other", 0.5, 0.4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data:\n", "data: expected fields below it, each as name: value; got None"),
        ("name: 123\n", "name: expected text; a number, a date or yes is text in quotes; got 123"),
        ("observe: {sinks: wandb}\n", "observe.sinks: expected a list, such as [a, b]; got 'wandb'"),
    ],
)
def test_problems_are_in_the_words_of_the_file(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    assert f"{message} in {tmp_path}/run.yaml" in problems("--config", f"{tmp_path}/run.yaml")


def test_fields_below_a_value_and_a_name_too_long_for_a_folder(file: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("data.uri: shards\nname: {a: 1, b: 2}\n")
    (line,) = problems("--config", f"{tmp_path}/run.yaml")
    assert line == "name: expected text; a number, a date or yes is text in quotes; got fields below it, a, b"
    (line,) = problems("--config", file, "--name", 256 * "x")
    assert "at most 255 characters; got 'xxx" in line


def test_options_alone_are_enough() -> None:
    assert parse("--data.uri", "shards").data.uri == "shards"


@pytest.mark.parametrize(
    ("text", "blocks"),
    [("0,1", (0, 1)), ("[0,1]", (0, 1)), ("1", (1,)), ("[]", ()), ("()", ()), ("", ()), ("none", ())],
)
@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_lists_on_the_command_line(file: str, network: str, text: str, blocks: tuple[int, ...]) -> None:
    option = f"--model.{network}.nonlocal_blocks"
    for arguments in ([option, text], [f"{option}={text}"]):
        model = parse("--config", file, *arguments).model
        assert getattr(model, network).nonlocal_blocks == blocks


def test_what_the_paper_can_be_read_as_is_options_and_yaml(file: str, tmp_path: Path) -> None:
    options = {"nonlocal_blocks": "all", "nonlocal_gain": "fixed", "output": "masked", "num_blocks": 3}
    given = [word for name, value in options.items() for word in (f"--model.generator.{name}", str(value))]
    config = parse("--config", file, *given, "--model.discriminator.nonlocal_blocks", "1")
    generator = config.model.generator
    assert (generator.nonlocal_blocks, generator.nonlocal_gain, generator.output) == ((0, 1, 2), "fixed", "masked")
    written = tiny.settings("shards", tmp_path)
    written["model"]["generator"] |= options
    written["model"]["discriminator"] |= {"nonlocal_blocks": [1]}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(written))
    assert parse("--config", str(tmp_path / "other.yaml")).model == config.model
    assert parse("--config", file, "--model.generator.nonlocal_gain", "0.5").model.generator.nonlocal_gain == 0.5
    (line,) = problems("--config", file, "--model.generator.nonlocal_blocks", "al")
    assert "no such placement; allowed: block indices, or one of none, early, middle, late, several, all" in line
    (line,) = problems("--config", file, "--model.discriminator.nonlocal_blocks", "9")
    assert "nonlocal_blocks has [9]; allowed with num_layers" in line


@pytest.mark.parametrize(
    ("written", "blocks"), [("none", ()), (1, (1,)), ("1", (1,)), ("0,1", (0, 1)), ([0, 1], (0, 1))]
)
@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_a_file_may_write_blocks_as_an_option_does(
    tmp_path: Path, network: str, written: Any, blocks: tuple[int, ...]
) -> None:
    content = tiny.settings("shards", tmp_path)
    content["model"][network]["nonlocal_blocks"] = written
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    assert getattr(parse("--config", str(tmp_path / "run.yaml")).model, network).nonlocal_blocks == blocks


@pytest.mark.parametrize("gain", ["learned", "nan", "none"])
def test_a_gain_is_a_number_or_fixed(file: str, gain: str) -> None:
    (line,) = problems("--config", file, "--model.generator.nonlocal_gain", gain)
    assert line.startswith("model.generator.nonlocal_gain: expected a finite number, or fixed; got ")


@pytest.mark.parametrize("option", ["--storage", "--data.uri", "--address", "--fork-of"])
def test_the_value_of_a_variable_that_is_not_set_is_no_place(file: str, option: str) -> None:
    (line,) = problems("--config", file, option, "")
    assert line.removeprefix("argument --").startswith(option.removeprefix("--"))


@pytest.mark.parametrize(("text", "workers"), [("3", 3), ("2,4", (2, 4)), ("none", None)])
def test_workers_are_a_number_or_a_range(file: str, text: str, workers: int | tuple[int, int] | None) -> None:
    assert parse("--config", file, "--scaling.workers", text).scaling.workers == workers


@pytest.mark.parametrize("text", ["0", "4,2", "many", "1,2,3"])
def test_other_workers_are_refused_with_one_line(file: str, text: str) -> None:
    (line,) = problems("--config", file, "--scaling.workers", text)
    assert "scaling.workers" in line
    assert "min,max" in line


def test_none_means_unset(file: str) -> None:
    assert parse("--config", file, "--schedule.images", "none").schedule.images is None


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("data: {uri: shards, crop_size: 30}\noptimiser: {lr: 1}\nmodel: {generator: {num_block: 3}}\n")
    lines = problems("--config", str(file), "--optimizer.lr", "-1", "--seeed", "3", "--step.precision", "int8")
    assert len(lines) == 6
    text = "\n".join(lines)
    assert (
        f"data.crop_size: must be a multiple of 4, because the generator halves sides twice; got 30 in {file}" in text
    )
    assert f"optimiser: no such field in {file}; did you mean optimizer?" in text
    assert "model.generator.num_block: no such field" in text
    assert "did you mean model.generator.num_blocks?" in text
    assert "optimizer.lr: input should be greater than 0; got '-1' on the command line" in text
    assert "--seeed: no such option; did you mean --seed?" in text
    assert "step.precision: input should be 'fp32'" in text


def test_a_yes_is_no_number(tmp_path: Path) -> None:
    file = tmp_path / "yes.yaml"
    wrong = "seed: yes\nmodel.generator.nonlocal_blocks: no\noptimizer.lr: on\nvalidation.every: true\n"
    file.write_text(f"data.uri: shards\nstep: {{tf32: no, channels_last: off}}\n{wrong}")
    lines = problems("--config", str(file))
    fields = ["seed", "model.generator", "optimizer.lr", "validation.every"]
    assert [line.partition(":")[0] for line in lines] == fields
    # Not block 0.
    assert "nonlocal_blocks 'false': no such placement; allowed: block indices, or one of none" in lines[1]
    file.write_text("data.uri: shards\nmodel.generator.nonlocal_blocks: [yes, 2]\nscaling.workers: [yes, 4]\n")
    assert [line.partition(":")[0] for line in problems("--config", str(file))] == [
        "model.generator.nonlocal_blocks.0",
        "scaling.workers",
    ]


def test_a_fields_name_alone_is_found_in_its_sections(file: str) -> None:
    lines = problems("--config", file, "--lr", "1e-3", "--n_epochs", "2", "--every", "3", "--Optimizer.LR", "1")
    assert lines == [
        "--lr: no such option; did you mean --optimizer.lr?",
        "--n_epochs: no such option; did you mean --schedule.epochs?",
        "--every: no such option; did you mean --checkpoint.every or --observe.every or --validation.every?",
        "--Optimizer.LR: no such option; did you mean --optimizer.lr?",
    ]


def test_a_block_outside_the_network_is_refused(file: str) -> None:
    (line,) = problems("--config", file, "--model.generator.nonlocal_blocks", "0,7")
    assert "model.generator: nonlocal_blocks has [7]" in line
    assert "allowed: 0 to 1" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--model.generator.nonlocal_blocks", "[1"),
            "--model.generator.nonlocal_blocks: a value of it cannot be read",
        ),
        (("--loss.augment=nan",), "--loss: a value of it cannot be read"),
        (("--data", "{"), "--data: a value of it cannot be read"),
        (("--data", "shards"), "--data shards: a section of fields; give one of them: --data."),
        (("--model.generator", "5"), "--model.generator 5: a section of fields; give one of them: --model.generator."),
        (("--model.generator.nonlocal_blocks", "1,x"), "nonlocal_blocks.1: input should be a valid integer"),
        (("--model.generator.nonlocal_blocks", "1,x"), "on the command line"),
        (("--model.discriminator.num_layers", "3"), "data.crop_size: 16 px is too small for model.discr"),
        (("--schedule.epochs", "inf"), "schedule.epochs: input should be a finite number"),
        (("--model.generator.nonlocal_gain", "nan"), "model.generator.nonlocal_gain"),
        (("--local", "--address", "10.0.0.1:6379"), "--local, --address: training in this process joins no cluster"),
    ],
)
def test_what_cannot_be_meant_is_refused(file: str, arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_options(["--config", file, *arguments])
    assert said in str(caught.value)


def test_more_workers_than_images_in_a_batch_are_refused(file: str) -> None:
    (line,) = problems("--config", file, "--scaling.workers", "5")
    assert "scaling.workers: 5 workers cannot share a data.global_batch of 4" in line


@pytest.mark.parametrize(
    ("content", "said"), [("a: [", "not a YAML file"), ("- 1\n", "expected fields"), ("a: \x07", "not a YAML file")]
)
def test_a_file_that_is_no_configuration(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    (line,) = problems("--config", str(file))
    assert line.startswith(f"--config {file}: {said}")


def test_a_missing_file_and_a_missing_dataset() -> None:
    assert problems("--config", "nowhere.yaml") == ["--config nowhere.yaml: cannot be read (No such file or directory)"]
    assert problems() == [
        "data.uri: required; give it as --data.uri or in the file, or two folders as --data.a and --data.b"
    ]


def test_an_option_without_a_value_and_a_stray_word(file: str) -> None:
    assert problems("--config", file, "--seed") == ["argument --seed: expected one argument"]
    assert problems("--config", file, "stray") == ["stray: unexpected argument"]


def test_the_environment_is_no_configuration(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEED", "5")
    monkeypatch.setenv("NAME", "from-the-environment")
    config = parse("--config", file)
    assert (config.seed, config.name) == (0, "tiny")


def test_help_shows_every_field_with_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_options(["--help"])
    assert ended.value.code == 0
    # Without any space, because lines are broken in the middle of a meaning.
    text = "".join(capsys.readouterr().out.split())
    for name, meaning in leaves(RunConfig).items():
        assert f"--{name}" in text
        assert meaning, f"{name} has no docstring"
        assert "".join(meaning.split()) in text
    assert "(default:0.0002)" in text


def test_a_configuration_survives_json(file: str) -> None:
    config = parse("--config", file, "--scaling.workers", "2,4", "--model.generator.nonlocal_blocks", "()")
    assert RunConfig.model_validate(json.loads(json.dumps(config.model_dump(mode="json")))) == config


def test_differences_name_the_fields() -> None:
    old = {"seed": 0, "model": {"a": 1, "b": {"c": [1]}}, "gone": 5}
    new = {"seed": 0, "model": {"a": 2, "b": {"c": [1, 2]}}}
    assert differences(old, new) == [
        "gone: 5 there, None here",
        "model.a: 1 there, 2 here",
        "model.b.c: [1] there, [1, 2] here",
    ]
    assert differences(old, old) == []


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parents[4] / "cluster" / "configs").glob("*.yaml")), ids=lambda p: p.name
)
def test_the_configurations_in_the_project_are_valid(file: Path) -> None:
    parse("--config", str(file), "--data.uri", "shards")
