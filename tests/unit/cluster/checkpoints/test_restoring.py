"""What a restore asks of storage at many ranks, counted; and that all ranks do the same when one finds damage."""

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks_as_threads import as_ranks

from cluster.checkpoints.checkpoint import Checkpoints
from cluster.checkpoints.config import CheckpointConfig
from cluster.ranks.clock import Clock
from cluster.ranks.world import World
from data_shards.storage import Location, files
from data_shards.storage.folder import RunFolder
from nla_cyclegan import (
    DiscriminatorConfig,
    GeneratorConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    StepConfig,
    TrainingStep,
)
from nla_cyclegan.weights.checkpoint import checkpoints_of, complete_checkpoints
from nla_cyclegan.weights.checkpoint_names import name_of
from nla_cyclegan.weights.commit import commit_file, part_file, read_commit, share_file

RANKS, A_MACHINE = 32, 8
MODEL = ModelConfig(
    generator=GeneratorConfig(base_channels=2, num_blocks=1, nonlocal_blocks=()),
    discriminator=DiscriminatorConfig(base_channels=2, num_layers=1),
)


def make_step(seed: int, world: World = World()) -> TrainingStep:  # noqa: B008
    step = TrainingStep(
        MODEL, LossConfig(), OptimizerConfig(), StepConfig(pool_size=128), seed=seed, global_batch=64,
        rank=world.rank, world=world.size, all_reduce=world.all_reduce if world.size > 1 else None,
    )  # fmt: skip
    for domain, pool in step.pools.items():
        pool.load_images(torch.full((2, 3, 4, 4), float(world.rank + (100 if domain == "a" else 0))))
    return step


def checkpoints(folder: RunFolder, world: World) -> Checkpoints:
    return Checkpoints(CheckpointConfig(every=64), Clock(batch=64, epoch=64, total=640), folder, world, {})


def save(folder: RunFolder, ranks: int, *at: int) -> None:
    def as_rank(world: World) -> None:
        mine = checkpoints(folder, world)
        for images in at:
            mine.save_now(make_step(images, world), images, {})

    as_ranks(ranks, as_rank)


ASKING = threading.local()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> tuple[Counter[int], Counter[int]]:
    """Requests to storage and bytes read by each rank; every way to storage leads through here."""
    requests, read = Counter[int](), Counter[int]()
    patiently = files.patiently

    def counting(task: str, attempt: Callable[[], Any], place: Location) -> Any:
        found = patiently(task, attempt, place=place)
        rank = getattr(ASKING, "rank", -1)
        requests[rank] += 1
        read[rank] += len(found) if isinstance(found, bytes) else 0
        return found

    monkeypatch.setattr(files, "patiently", counting)
    return requests, read


def restore(folder: RunFolder, ranks: int) -> list[tuple[int, dict[str, torch.Tensor]]]:
    """Images seen and image pools that each rank restored; they hold the same networks."""

    def as_rank(world: World) -> tuple[int, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        ASKING.rank = world.rank
        step = make_step(0, world)
        images = checkpoints(folder, world).restore(step)
        pools = {domain: pool.images for domain, pool in step.pools.items() if pool.images is not None}
        return images, pools, step.networks["generator_ab"].state_dict()

    restored = as_ranks(ranks, as_rank)
    wanted = make_step(restored[0][0]).networks["generator_ab"].state_dict()
    for _, _, weights in restored:
        assert all(torch.equal(weights[name], wanted[name]) for name in wanted)
    return [(images, pools) for images, pools, _ in restored]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path), "run")


def test_32_ranks_ask_storage_little_and_read_one_checkpoint(
    folder: RunFolder, asked: tuple[Counter[int], Counter[int]]
) -> None:
    save(folder, RANKS, 64, 128)
    requests, read = asked
    requests.clear()
    read.clear()
    restored = restore(folder, RANKS)
    assert [images for images, _ in restored] == [128] * RANKS
    assert [pools["b"][0, 0, 0, 0].item() for _, pools in restored] == list(range(RANKS))
    assert max(requests[rank] for rank in range(RANKS)) <= 10
    size = sum(folder.files_of(complete_checkpoints(folder)[0]).values())
    a_machine = [sum(read[rank] for rank in range(first, first + A_MACHINE)) for first in range(0, RANKS, A_MACHINE)]
    assert max(a_machine) <= size
    # Nothing twice: the machines together read one checkpoint.
    assert 0.5 * size < sum(a_machine) <= size


def test_other_numbers_of_ranks_restore_the_same_images_in_their_pools(folder: RunFolder) -> None:
    save(folder, 4, 64)
    for ranks in (1, 3, 8):
        pools = [pools for _, pools in restore(folder, ranks)]
        for domain, first in (("a", 100.0), ("b", 0.0)):
            values = [image[0, 0, 0].item() for pool in pools if domain in pool for image in pool[domain]]
            assert values == [first + rank for rank in range(4) for _ in range(2)]


@pytest.mark.parametrize("file", ["discriminator_b.safetensors", "pool-2.safetensors", "commit-of-00004.json"])
@pytest.mark.parametrize("ranks", [4, 3])
def test_damage_that_one_rank_finds_makes_all_skip_the_checkpoint(
    folder: RunFolder, file: str, ranks: int, capsys: pytest.CaptureFixture[str]
) -> None:
    save(folder, 4, 64, 128)
    path = Path(folder.path) / name_of(128) / file
    path.write_bytes(path.read_bytes()[:-3] + b"***")
    assert [images for images, _ in restore(folder, ranks)] == [64] * ranks
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"checkpoint {name_of(128)} is skipped" in said
    assert file in said


def test_a_checkpoint_is_complete_with_its_commit_alone(folder: RunFolder) -> None:
    save(folder, 3, 64)
    there = checkpoints_of(folder)[name_of(64)]
    assert {part_file(rank, 3) for rank in range(1, 3)} <= there.keys()
    (Path(folder.path) / name_of(64) / commit_file(3)).unlink()
    assert complete_checkpoints(folder) == []


def test_the_lists_of_an_earlier_version_are_read_too(folder: RunFolder) -> None:
    save(folder, 3, 64)
    location = folder.location.inside(name_of(64))
    commit = folder.read_json(f"{name_of(64)}/{commit_file(3)}")
    for rank in range(3):
        mine = {name: file for index, (name, file) in enumerate(commit["files"].items()) if index % 3 == rank}
        folder.write_json(f"{name_of(64)}/{share_file(rank, 3)}", {"files": mine})
    (Path(folder.path) / name_of(64) / commit_file(3)).unlink()
    assert read_commit(location).world == 3
    assert [images for images, _ in restore(folder, 3)] == [64] * 3
