"""`train --fork-of RUN@N`: another run goes on from a checkpoint of one that is left as it is."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import yaml

from cluster import train as verb
from cluster.__main__ import main
from cluster.ranks.world import World
from cluster.records.about import read_about
from cluster.records.metrics_file import read_records
from cluster.settings.config import RunConfig
from cluster.settings.options import FORK_OF, parse_options, train_command
from cluster.settings.preflight import claim, prepare
from cluster.training.loop import train
from data_shards.errors import UserError
from data_shards.storage.folder import RunFolder
from nla_cyclegan.weights.checkpoint import complete_checkpoints
from nla_cyclegan.weights.checkpoint_names import images_of


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A finished run of 32 images, at another rate than the default, with checkpoints at 16 and 32."""
    root = tmp_path_factory.mktemp("origin")
    changes = {"schedule": {"images": 32, "constant": 1}, "optimizer": {"lr": 1e-3}, "scaling": {"workers": 1}}
    config = tiny.config(tiny.pack_dataset(root), root / "runs", name="first", **changes)
    claim(prepare(config))
    train(config, World())
    return config


def reference(origin: RunConfig, mark: str = "") -> str:
    return f"{origin.storage}/{origin.name}{mark}"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def newest(storage: str, name: str) -> dict[str, torch.Tensor]:
    return tiny.newest(RunFolder(storage, name))


def test_a_fork_with_a_longer_schedule_is_the_run_that_had_it_from_the_start(origin: RunConfig, tmp_path: Path) -> None:
    before = contents(Path(reference(origin)))
    fork = ["train", "--local", FORK_OF, reference(origin, "@16"), "--name", "longer", "--storage", str(tmp_path)]
    assert main([*fork, "--schedule.images", "48"]) == 0
    assert contents(Path(reference(origin))) == before

    whole = origin.model_copy(update={"storage": str(tmp_path), "name": "whole"})
    whole = whole.model_copy(update={"schedule": whole.schedule.model_copy(update={"images": 48})})
    claim(prepare(whole))
    train(whole, World())
    one, two = newest(str(tmp_path), "longer"), newest(str(tmp_path), "whole")
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    folder = RunFolder(str(tmp_path), "longer")
    assert [record["images"] for record in read_records(folder)] == [8, 16, 24, 32, 40, 48]
    about = read_about(folder, "run.json")
    assert about["origin"] == {"run": reference(origin), "checkpoint": "checkpoint_000000000016"}
    assert about["config"]["optimizer"]["lr"] == 1e-3
    # The same command again, also when the run that it was forked of is gone.
    assert main([*fork, "--schedule.images", "48"]) == 0
    fork[fork.index(FORK_OF) + 1] = f"{tmp_path}/deleted@16"
    assert main([*fork, "--schedule.images", "48"]) == 0
    with pytest.raises(UserError, match=r"deleted: nothing is there"):
        verb.main([*fork[1:], "--name", "another", "--schedule.images", "48"])


def test_of_a_run_the_newest_checkpoint_and_another_rate(origin: RunConfig, tmp_path: Path) -> None:
    options = parse_options(
        [FORK_OF, reference(origin), "--name", "slower", "--optimizer.lr", "1e-4", "--schedule.images", "40"]
    )
    assert (options.config.storage, options.config.scaling.workers) == (origin.storage, 1)
    config = options.config.model_copy(update={"storage": str(tmp_path)})
    prepared = prepare(config, options.fork_of)
    assert (prepared.images_seen, prepared.finished) == (32, False)
    assert list(tmp_path.iterdir()) == []


def test_it_is_written_beside_the_run_wherever_that_says_that_it_lies(origin: RunConfig, tmp_path: Path) -> None:
    shutil.copytree(Path(origin.storage) / origin.name, tmp_path / "moved")
    about = json.loads((tmp_path / "moved" / "run.json").read_text())
    about["config"]["storage"] = "/somewhere/else"
    (tmp_path / "moved" / "run.json").write_text(json.dumps(about))
    options = parse_options([FORK_OF, f"{tmp_path}/moved", "--name", "longer", "--schedule.images", "40"])
    assert options.config.storage == str(tmp_path)


def test_one_that_was_interrupted_while_it_was_copied_begins_as_a_fork_all_the_same(
    origin: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fork = ["train", "--local", FORK_OF, reference(origin, "@16"), "--name", "longer", "--storage", str(tmp_path)]
    fork += ["--schedule.images", "32"]
    write = RunFolder.write

    def stops(folder: RunFolder, name: str, content: bytes) -> Any:
        if name.startswith("checkpoint_") and name.endswith(".json"):
            raise KeyboardInterrupt
        return write(folder, name, content)

    monkeypatch.setattr(RunFolder, "write", stops)
    assert main(fork) == 130
    monkeypatch.undo()
    assert complete_checkpoints(RunFolder(str(tmp_path), "longer")) == []
    plain = origin.model_copy(update={"storage": str(tmp_path), "name": "longer"})
    with pytest.raises(UserError, match=r"a fork of .*/first that has not started; give --fork-of again"):
        prepare(plain)
    assert main(fork) == 0
    assert images_of(complete_checkpoints(RunFolder(str(tmp_path), "longer"))[0]) == 32


@pytest.mark.parametrize(
    ("mark", "options", "said"),
    [
        ("@16", [], r"--fork-of .*: give the fork a --name of its own"),
        ("@16", ["--name", "first"], r"--name of its own; without --fork-of the run continues"),
        ("", ["--name", "x"], r"32 images seen, and the schedule ends at 32: give a longer one"),
        ("@20", ["--name", "x"], r"no checkpoint at 20 images; there are 16, 32"),
        ("/nothing", ["--name", "x"], r"nothing is there"),
        ("@16", ["--name", "x", "--optimizer.name", "adam"], r"another optimizer\.name; .*--init\.from .*/first@16"),
        ("@16", ["--name", "x", "--model.generator.num_blocks", "3"], r"does not fit another model;"),
        ("@16", ["--name", "x", "--step.ema_half_life", "8"], r"does not fit another step\.ema_half_life;"),
        ("@16", ["--name", "x", "--data.crop_size", "20"], r"does not fit another data\.crop_size;"),
        ("@16", ["--name", "x", "--step.precision", "fp16"], r"does not fit another step\.precision;"),
    ],
)
def test_what_cannot_be_forked_is_one_line_before_anything_is_stored(
    mark: str, options: list[str], said: str, origin: RunConfig
) -> None:
    before = contents(Path(origin.storage))
    with pytest.raises(UserError, match=said) as caught:
        verb.main(["--local", FORK_OF, reference(origin, mark), *options])
    assert "\n" not in str(caught.value)
    assert contents(Path(origin.storage)) == before


def test_what_a_job_is_sent_names_every_field(origin: RunConfig, tmp_path: Path) -> None:
    """A field that the fork has its default in again would have the other run's value there."""
    fork = [FORK_OF, reference(origin, "@16"), "--name", "x", "--optimizer.lr", "2e-4", "--schedule.images", "48"]
    options = parse_options(fork)
    assert options.fork_of
    command = shlex.split(train_command(options.config, FORK_OF, options.fork_of))
    again = parse_options(command[4:])
    assert again.config == options.config
    assert again.config.optimizer.lr == 2e-4
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"name": "from-a-file", "optimizer": {"lr": 3e-4}}))
    in_file = parse_options([FORK_OF, reference(origin, "@16"), "--config", str(tmp_path / "run.yaml")])
    assert (in_file.config.name, in_file.config.optimizer.lr, in_file.config.seed) == ("from-a-file", 3e-4, origin.seed)
