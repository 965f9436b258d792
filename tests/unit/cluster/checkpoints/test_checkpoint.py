import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem
from torch import Tensor

from cluster.checkpoints import storing
from cluster.checkpoints.checkpoint import Checkpoints, superfluous
from cluster.checkpoints.config import CheckpointConfig
from cluster.checkpoints.state import TensorFile, deal
from cluster.inspection.snapshot import take_snapshot
from cluster.ownership.attempt import ENDED, Attempt
from cluster.ownership.process import Process
from cluster.ownership.records import Record, Records
from cluster.ranks.clock import Clock
from cluster.ranks.world import World
from cluster.records.about import read_about
from cluster.records.config import ObserveConfig
from cluster.records.sinks import MetricsFiles
from cluster.records.upload import local_files
from data_shards.errors import LostRunError, StorageAwayError, UserError
from data_shards.storage.folder import RunFolder
from nla_cyclegan import (
    DiscriminatorConfig,
    GeneratorConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    StepConfig,
    TrainingStep,
    load_generator,
)
from nla_cyclegan.training.optimizer.optim import make_optimizer
from nla_cyclegan.training.state import load_optimizer, optimizer_tensors
from nla_cyclegan.weights.checkpoint import CheckpointReader, checkpoints_of, complete_checkpoints
from nla_cyclegan.weights.checkpoint_names import NAME, age, images_of, name_of
from nla_cyclegan.weights.commit import commit_file
from nla_cyclegan.weights.references import select
from nla_cyclegan.weights.stored_score import StoredScore, best_of, score_of

ALONE = World()
ELSEWHERE = Record("ann@elsewhere", "pid 1", "2026-11-26 12:00:00", Process("another machine", 1, "1"))
CLOCK = Clock(batch=2, epoch=10, total=20)
MODEL = ModelConfig(
    generator=GeneratorConfig(base_channels=2, num_blocks=1, nonlocal_blocks=(0,)),
    discriminator=DiscriminatorConfig(base_channels=2, num_layers=1),
)


def make_step(seed: int = 0, pool_size: int = 3, ema_half_life: int | None = None) -> TrainingStep:
    config = StepConfig(pool_size=pool_size, ema_half_life=ema_half_life)
    return TrainingStep(MODEL, LossConfig(), OptimizerConfig(), config, seed=seed, global_batch=2)


def train(step: TrainingStep, images_seen: int, steps: int) -> None:
    for number in range(steps):
        random = torch.Generator().manual_seed(images_seen + number)
        a, b = (torch.randint(0, 256, (2, 3, 16, 16), generator=random).to(torch.uint8) for _ in "ab")
        step(a, b, images_seen=images_seen + 2 * number, lr=1e-3)


def tensors_of(step: TrainingStep) -> dict[str, Tensor]:
    """Everything that a checkpoint must bring back."""
    tensors = {}
    for name, network in step.networks.items():
        tensors |= {f"{name}.{key}": value for key, value in network.state_dict().items()}
    for name, network in step.inference_generators.items():
        tensors |= {f"painter_{name}.{key}": value for key, value in network.state_dict().items()}
    for name, optimizer in step.optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}.{index}.{key}": value for key, value in state.items()}
    tensors |= {f"pool_{name}": pool.images for name, pool in step.pools.items() if pool.images is not None}
    return {name: tensor.clone() for name, tensor in tensors.items()}


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path), "run")


Make = Callable[[], Checkpoints]


@pytest.fixture
def make(folder: RunFolder) -> Make:
    """A new process's view of the run: saves every 4 images, keeps 2."""
    config = CheckpointConfig(every=4, keep=2)
    return lambda: Checkpoints(config, CLOCK, folder, ALONE, {"config": {"a": 1}})


def save(checkpoints: Checkpoints, step: TrainingStep, *at: int) -> None:
    for images_seen in at:
        checkpoints.maybe_save(step, images_seen, {"loss": 0.5})
        checkpoints.wait()


def test_a_restored_step_is_the_saved_one_bit_for_bit(make: Make) -> None:
    step = make_step()
    train(step, 0, 4)
    saved = tensors_of(step)
    assert any("mu_product" in name for name in saved)
    save(make(), step, 8)
    other = make_step()
    train(other, 100, 1)
    assert make().restore(other) == 8
    assert_equal(tensors_of(other), saved)
    # and it goes on alike
    train(step, 8, 2)
    train(other, 8, 2)
    assert_equal(tensors_of(other), tensors_of(step))


def test_half_full_and_absent_histories(make: Make, folder: RunFolder) -> None:
    step = make_step(pool_size=50)
    train(step, 0, 2)
    save(make(), step, 4)
    other = make_step(pool_size=50)
    make().restore(other)
    assert torch.equal(other.pools["a"].images, step.pools["a"].images)  # type: ignore[arg-type]
    assert len(other.pools["a"].images) == 4  # type: ignore[arg-type]
    save(make(), make_step(pool_size=0), 8)
    without = make_step(pool_size=0)
    assert make().restore(without) == 8
    assert without.pools["a"].images is None


def test_nothing_to_restore(make: Make) -> None:
    assert make().restore(make_step()) == 0


def test_saved_when_due_and_at_the_end_and_the_newest_are_kept(make: Make, folder: RunFolder) -> None:
    checkpoints, step = make(), make_step()
    save(checkpoints, step, *range(2, 11, 2))
    assert complete_checkpoints(folder) == ["checkpoint_000000000008", "checkpoint_000000000004"]
    save(checkpoints, step, 12, 18)
    assert complete_checkpoints(folder) == ["checkpoint_000000000012", "checkpoint_000000000008"]
    save(checkpoints, step, 20)
    assert complete_checkpoints(folder) == ["checkpoint_000000000020", "checkpoint_000000000012"]


def test_a_bucket_that_refuses_deletions_does_not_end_the_run(
    make: Make, folder: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(self: RunFolder, name: str) -> None:
        raise UserError(f"cannot delete {name}: AWS Error ACCESS_DENIED")

    checkpoints, step = make(), make_step()
    with monkeypatch.context() as retention:
        retention.setattr(RunFolder, "delete_folder", refuse)
        save(checkpoints, step, 4, 8, 12, 16)
        (Path(folder.path) / "checkpoint_000000000016" / commit_file(1)).unlink()
        assert make().restore(make_step(1)) == 12
    assert len(folder.names()) == 4
    said = capsys.readouterr().err
    assert said.count("that are not kept cannot be deleted (cannot delete checkpoint_000000000004") == 1
    assert "that are not kept cannot be deleted (cannot delete checkpoint_000000000016" in said
    save(checkpoints, step, 20)
    assert complete_checkpoints(folder) == ["checkpoint_000000000020", "checkpoint_000000000012"]
    assert "resolved: checkpoints" in capsys.readouterr().err


def test_a_notice_of_preemption_after_the_last_step_saves_nothing_twice(folder: RunFolder) -> None:
    checkpoints, step = Checkpoints(CheckpointConfig(every=8), CLOCK, folder, ALONE, {}), make_step()
    checkpoints.maybe_save(step, 20, {}, 3.0)
    checkpoints.save_now(step, 20, {})
    assert complete_checkpoints(folder) == ["checkpoint_000000000020"]


def test_the_best_are_kept_too(folder: RunFolder) -> None:
    config = CheckpointConfig(every=4, keep=1, keep_best=2)
    step, scores = make_step(), {4: 3.0, 8: 1.0, 12: 2.0, 16: None, 20: 5.0}
    for images_seen, score in scores.items():
        # Each by a process of its own: what is the best is read from storage.
        checkpoints = Checkpoints(config, CLOCK, folder, ALONE, {})
        checkpoints.maybe_save(step, images_seen, {}, score)
        checkpoints.wait()
    assert [images_of(name) for name in complete_checkpoints(folder)] == [20, 12, 8]


def test_scores_of_different_definitions_do_not_compare(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """A run of an earlier version goes on: the best by its distance stays, beside the best by the score of now."""
    config, step, events = CheckpointConfig(every=2, keep=1, keep_best=1), make_step(), []
    scores = {2: (60.0, None), 4: (70.0, None), 6: (0.9, "swd+lab 1"), 8: (0.8, "swd+lab 1"), 10: (0.95, "swd+lab 1")}
    checkpoints = Checkpoints(config, CLOCK, folder, ALONE, {}, add_event=lambda *event: events.append(event))
    for images_seen, (score, definition) in scores.items():
        checkpoints.maybe_save(step, images_seen, {}, score, definition)
        checkpoints.wait()
    there = {name: score_of(folder, name) for name in complete_checkpoints(folder)}
    assert [images_of(name) for name in there] == [10, 8, 2]
    assert there[name_of(2)] == StoredScore(60.0, "swd")
    assert best_of(there) == name_of(8)
    assert take_snapshot(folder).best == next(each for each in take_snapshot(folder).checkpoints if each.images == 8)
    said = "checkpoints are scored by swd and by swd+lab 1, which are not comparable: the best of each are kept"
    assert capsys.readouterr().err == f"warning: {said}\n"
    assert events.count(("scores", said)) == 1


def test_scores_of_other_numbers_of_images_do_not_compare(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """validation.images may change when a run is continued."""
    config, step = CheckpointConfig(every=2, keep=1, keep_best=1), make_step()
    for images, scores in ((64, {2: 0.7, 4: 0.8}), (4, {6: 0.5, 8: 0.9})):
        about = {"config": {"validation": {"images": images}}}
        checkpoints = Checkpoints(config, CLOCK, folder, ALONE, about)
        for images_seen, score in scores.items():
            checkpoints.maybe_save(step, images_seen, {}, score, "swd+lab 1")
            checkpoints.wait()
        checkpoints.find()
    assert [images_of(name) for name in complete_checkpoints(folder)] == [8, 6, 2]
    assert "scored by swd+lab 1 of 4 images and by swd+lab 1 of 64 images, which" in capsys.readouterr().err
    best = take_snapshot(folder).best
    assert best
    assert best.images == 6
    chosen = select(folder.location, "best")
    assert images_of(chosen.name) == 6
    assert "the best of 2 evaluated checkpoints by swd+lab 1: " in str(chosen)


def test_the_best_is_of_the_newest_definition_and_the_older_of_two() -> None:
    old, new = StoredScore(0.1), StoredScore(0.5, "swd+lab 1")
    assert best_of({name_of(1): None}) is None
    assert best_of({name_of(1): old, name_of(2): new, name_of(3): new, name_of(4): None}) == name_of(2)
    assert best_of({name_of(1): old, name_of(2): StoredScore(0.2)}) == name_of(1)


def test_a_score_that_cannot_be_read_now_is_not_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the best checkpoint would be deleted after a moment in which storage was away."""

    def away(folder: RunFolder, name: str) -> None:
        raise StorageAwayError("away")

    monkeypatch.setattr(RunFolder, "read_json", away)
    with pytest.raises(StorageAwayError):
        score_of(RunFolder(str(tmp_path), "run"), "checkpoint_000000000008")


def test_which_checkpoints_are_superfluous() -> None:
    names = [name_of(images) for images in range(1, 7)]
    scores = dict(zip(names, (2.0, 1.0, 1.0, None, 9.0, None), strict=True))
    assert superfluous(scores, 2, 1) == [names[0], names[2], names[3]]
    assert superfluous(scores, 1, 0) == names[:5]
    assert superfluous(scores, 6, 0) == []
    assert superfluous(scores, 1, 9) == [names[3]]
    assert superfluous({}, 1, 1) == []


def test_it_says_what_it_is_and_others_can_use_the_generators(make: Make, folder: RunFolder) -> None:
    step = make_step()
    save(make(), step, 4)
    about = folder.read_json("checkpoint_000000000004/run.json")
    assert about == {"config": {"a": 1}, "images_seen": 4, "world": 1, "score": None, "metrics": {"loss": 0.5}}
    generator = load_generator(folder.path, "A2B")
    ours = step.networks["generator_ab"].state_dict()
    assert_equal(dict(generator.state_dict()), dict(ours))


def test_with_a_moving_average_the_generators_files_hold_it_and_both_come_back(make: Make, folder: RunFolder) -> None:
    step = make_step(ema_half_life=4)
    train(step, 0, 4)
    save(make(), step, 8)
    average, training = (dict(n["generator_ab"].state_dict()) for n in (step.inference_generators, step.networks))
    assert not torch.equal(average["encoder.0.weight"], training["encoder.0.weight"])
    assert_equal(dict(load_generator(folder.path, "A2B").state_dict()), average)

    other = make_step(ema_half_life=4)
    assert make().restore(other) == 8
    assert_equal(tensors_of(other), tensors_of(step))
    # The average is no dead end: both train on alike.
    for each in (step, other):
        train(each, 8, 3)
    assert_equal(tensors_of(other), tensors_of(step))


def test_an_incomplete_checkpoint_is_passed_over_and_removed(make: Make, folder: RunFolder) -> None:
    step = make_step()
    save(make(), step, 4, 8)
    commit = Path(folder.path) / "checkpoint_000000000008" / commit_file(1)
    commit.rename(commit.with_name(f"{commit.name}.tmp"))
    assert make().restore(make_step(1)) == 4
    assert folder.names() == ["checkpoint_000000000004"]


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_checkpoint_is_skipped_with_a_warning(
    make: Make, folder: RunFolder, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    step = make_step()
    save(make(), step, 4)
    saved = tensors_of(step)
    train(step, 4, 2)
    save(make(), step, 8)
    file = Path(folder.path) / "checkpoint_000000000008" / "optimizer_generators.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes({"flip": content, "cut": content[:-8], "remove": b""}[damage])
    if damage == "remove":
        file.unlink()
    checkpoints, other = make(), make_step(1)
    assert checkpoints.restore(other) == 4
    assert_equal(tensors_of(other), saved)
    assert "warning: checkpoint checkpoint_000000000008 is skipped: optimizer_gen" in capsys.readouterr().err
    # The same images again: not into the damaged folder.
    save(checkpoints, other, 8)
    assert make().restore(make_step(2)) == 8
    assert complete_checkpoints(folder)[0] == "checkpoint_000000000008-2"


@pytest.mark.parametrize(
    "content", [b"", b'{"files": {"generator_ab.saf', b"\xff", b"[]", b'{"files": {}, "world": 2}', b"[" * 100_000]
)
def test_a_checkpoint_whose_list_of_files_is_damaged_is_skipped_too(
    make: Make, folder: RunFolder, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    save(make(), make_step(), 4, 8)
    folder.write(f"checkpoint_000000000008/{commit_file(1)}", content)
    assert make().restore(make_step(1)) == 4
    said = capsys.readouterr().err
    assert f"{commit_file(1)}: damaged" in said
    assert said.count("\n") == 1


def test_a_copy_of_a_checkpoint_that_is_deleted_meanwhile_is_whole(make: Make, folder: RunFolder) -> None:
    save(make(), make_step(), 4)
    reader = CheckpointReader(folder.location.inside("checkpoint_000000000004"))
    (Path(folder.path) / "checkpoint_000000000004" / commit_file(1)).unlink()
    copy = RunFolder(folder.root, "copy")
    reader.copy_to(copy, "checkpoint_000000000004")
    assert CheckpointReader(copy.location.inside("checkpoint_000000000004")).files == reader.files


def test_a_run_does_not_begin_anew_over_damaged_checkpoints(make: Make, folder: RunFolder) -> None:
    save(make(), make_step(), 4)
    (Path(folder.path) / "checkpoint_000000000004" / "generator_ab.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="none of its checkpoints can be read"):
        make().restore(make_step())


def test_loading_a_strangers_checkpoint_runs_no_code(make: Make, folder: RunFolder, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "sprung",))  # type: ignore[return-value]

    save(make(), make_step(), 4)
    for name in folder.files_of("checkpoint_000000000004"):
        if name.endswith(".safetensors"):
            torch.save({"trap": Trap()}, tmp_path / "trap")
            described = folder.upload(tmp_path / "trap", f"checkpoint_000000000004/{name}")
            commit = folder.read_json(f"checkpoint_000000000004/{commit_file(1)}")
            commit["files"][name] = vars(described)
            folder.write_json(f"checkpoint_000000000004/{commit_file(1)}", commit)
    with pytest.raises(UserError):
        make().restore(make_step())
    assert not (tmp_path / "sprung").exists()


def test_an_incomplete_checkpoint_cannot_be_read(folder: RunFolder) -> None:
    with pytest.raises(UserError, match="not complete"):
        CheckpointReader(folder.location.inside("checkpoint_000000000004"))


def test_histories_are_dealt_anew_without_losing_an_image() -> None:
    histories = [{"a": torch.arange(3.0)}, {"a": torch.arange(3.0, 7.0)}, {}]
    for size in (1, 2, 5):
        parts = [deal(histories, World(rank, size))["a"] for rank in range(size)]
        assert torch.cat(parts).tolist() == list(range(7))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_adam_too() -> None:
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(3, 2)), torch.nn.Parameter(torch.randn(4))]
    optimizer = make_optimizer(OptimizerConfig(name="adam", lr=0.1), weights)
    sum(weight.square().sum() for weight in weights).backward()  # type: ignore[union-attr]
    optimizer.step()
    content = TensorFile(optimizer_tensors(optimizer)).content()
    other = make_optimizer(OptimizerConfig(name="adam", lr=0.1), weights)
    load_optimizer(other, safetensors.torch.load(content))
    for index, state in optimizer.state_dict()["state"].items():
        assert_equal(other.state_dict()["state"][index], state)


def test_damaged_json_is_named(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path), "run")
    folder.write("run.json", json.dumps({"a": 1}).encode()[:-2])
    with pytest.raises(UserError, match=r"run/run\.json: damaged \(.*\); delete it, or restore it from a copy$"):
        folder.read_json("run.json")
    for content in (b"", b"[]", b'{"config": 3}'):
        folder.write("run.json", content)
        with pytest.raises(
            UserError, match=r"run/run\.json: damaged \(.*\); delete it: .* each checkpoint have a copy"
        ):
            read_about(folder, "run.json")


def test_a_folder_behind_a_uri_works_alike(make: Make, folder: RunFolder, tmp_path: Path) -> None:
    """Any filesystem but the local one: no rename, and the files of the log are uploaded."""
    remote = RunFolder(str(tmp_path), "run")
    remote.filesystem, remote.root, remote.path = SubTreeFileSystem(str(tmp_path), LocalFileSystem()), "", "run"
    remote.is_local = False
    checkpoints = Checkpoints(CheckpointConfig(every=4, keep=1), CLOCK, remote, ALONE, {})
    save(checkpoints, make_step(), 4, 8)
    assert complete_checkpoints(folder) == ["checkpoint_000000000008"]
    assert make().restore(make_step(1)) == 8

    remote.write("metrics.jsonl", b'{"images": 4}\n{"images": 8}\n{"images": 12}\n{"ima')
    with local_files(remote) as there:
        files = MetricsFiles(ObserveConfig(), there[0], remote)
        files.start(8)
        files.write({"images": 10, "loss": 0.5})
        files.close()
    lines = [json.loads(line) for line in (folder.read("metrics.jsonl") or b"").splitlines()]
    assert lines == [{"images": 4}, {"images": 8}, {"images": 10, "loss": 0.5}]
    assert len(folder.files_of("tensorboard")) == 1


def owned_by(folder: RunFolder, attempt: str) -> Attempt:
    Records(folder).write(attempt, ELSEWHERE)
    return Attempt(attempt, folder.root, folder.name)


def of_attempt(folder: RunFolder, attempt: Attempt) -> Checkpoints:
    return Checkpoints(CheckpointConfig(every=4, keep=2), CLOCK, folder, ALONE, {}, attempt=attempt)


def test_names_carry_the_attempt_and_each_of_its_worker_groups(folder: RunFolder) -> None:
    attempt, step = owned_by(folder, "3abcd"), make_step()
    for images in (4, 8):
        checkpoints = of_attempt(folder, attempt)
        checkpoints.restore(step)
        save(checkpoints, step, images)
    newest, before = complete_checkpoints(folder)
    assert re.fullmatch(r"checkpoint_000000000004-3abcd1[a-z]{2}", before)
    assert re.fullmatch(r"checkpoint_000000000008-3abcd2[a-z]{2}", newest)
    assert of_attempt(folder, owned_by(folder, "12abcd")).restore(make_step(1)) == 8


def test_names_are_sorted_by_images_then_attempts_then_worker_groups() -> None:
    names = ["8", "8-2", "8-10", "8-9zzzz1aa", "8-10aaaa1zz", "8-10aaaa2aa", "8-10aaaa10aa", "8-10aaab1aa", "9"]
    names = [f"checkpoint_{name}" for name in names]
    mixed = random.Random(0).sample(names, len(names))
    assert sorted(mixed, key=age) == names
    assert all(NAME.fullmatch(name) for name in names)
    wrong = (
        "checkpoint_8-",
        "checkpoint_8-abcd1aa",
        "checkpoint_8-3abcd",
        "checkpoint_\u0668",
        "checkpoint_8-3abcd1aa/x",
    )
    assert not any(map(NAME.fullmatch, wrong))


def test_leftovers_of_its_own_and_of_earlier_attempts_are_deleted_not_those_of_a_later_one(folder: RunFolder) -> None:
    leftovers = [name_of(8), name_of(8, "2zzzz1ab"), name_of(8, "3abcd1ab"), name_of(8, "4abcd1ab")]
    for name in leftovers:
        folder.write(f"{name}/generator_ab.safetensors", b"half")
    attempt = owned_by(folder, "3abcd")
    of_attempt(folder, attempt).restore(make_step())
    assert list(checkpoints_of(folder)) == leftovers[3:]


def test_who_has_lost_the_run_neither_stores_nor_deletes_anything(folder: RunFolder) -> None:
    attempt, step = owned_by(folder, "3abcd"), make_step()
    checkpoints = of_attempt(folder, attempt)
    save(checkpoints, step, 4)
    folder.write(f"{name_of(8, '3abcd9ab')}/generator_ab.safetensors", b"half")
    Records(folder).mark("3abcd", ENDED)
    before = folder.files()
    with pytest.raises(LostRunError, match="3abcd has ended, or lost this folder"):
        save(checkpoints, step, 8)
    with pytest.raises(LostRunError):
        of_attempt(folder, attempt).restore(step)
    assert folder.files() == before


def test_who_loses_the_run_while_it_commits_withdraws_the_checkpoint(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next owner may have deleted some of its files: it must not count as complete."""
    attempt, step = owned_by(folder, "3abcd"), make_step()
    write_commit = storing.write_commit

    def taken_over_meanwhile(*arguments: Any) -> None:
        write_commit(*arguments)
        Records(folder).mark("3abcd", ENDED)

    monkeypatch.setattr(storing, "write_commit", taken_over_meanwhile)
    with pytest.raises(LostRunError):
        save(of_attempt(folder, attempt), step, 4)
    assert checkpoints_of(folder) == {}
