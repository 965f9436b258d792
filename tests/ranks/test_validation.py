"""An evaluation's work is dealt out over the ranks; what comes out does not tell over how many."""

from pathlib import Path

import pytest
import tiny
from group import Ranks
from image_folders import picture

from cluster.evaluation import held_out
from cluster.evaluation.validate import Validation
from cluster.ranks.clock import Clock
from cluster.ranks.world import World
from cluster.records.observe import MetricsLog
from cluster.settings.config import RunConfig
from data_shards import open_dataset
from data_shards.packing.pack import pack
from nla_cyclegan import TrainingStep


def measured_twice(config: RunConfig) -> tuple[dict[str, float], dict[str, float], list[tuple[str, int]], int]:
    """Both measurements of one rank, which images it read, and at how many scales it keeps the vectors of real ones."""
    read: list[tuple[str, int]] = []
    real = held_out.read_split

    def watched(dataset, split, *, indices, **options):  # type: ignore[no-untyped-def]
        indices = list(indices)
        read.extend((split, index) for index in indices)
        return real(dataset, split, indices=indices, **options)

    held_out.read_split = watched  # type: ignore[assignment]
    try:
        world, dataset = World.current(), open_dataset(config.data.uri)
        clock = Clock.of(config.schedule, dataset, 4)
        log = MetricsLog(config.observe, clock, world)
        validation = Validation(config.validation, dataset, log, lambda metrics: None, size=20, fit=config.data.fit)
        step = TrainingStep(config.model, config.loss, config.optimizer, config.step, seed=0, global_batch=4)
        first, second = validation.measure(step), validation.measure(step)
        return first, second, read, len(validation._vectors_of_real or {})
    finally:
        held_out.read_split = real


def test_any_number_of_ranks_measures_the_same(ranks: Ranks, tmp_path: Path) -> None:
    # 5 images of one domain and 4 of the other are three batches; two directions with one scale of SWD and three of Lab are
    # eight distances. The images have sizes of their own.
    tiny.pack_dataset(tmp_path)
    for number, size in enumerate(((24, 60), (24, 60), (31, 24))):
        for split in ("testA", "testB"):
            picture(number, *size).save(tmp_path / "images" / split / f"00{number}.png")
    pack(tmp_path / "images", str(tmp_path / "sizes"))
    config = tiny.config(
        str(tmp_path / "sizes"), tmp_path / "runs", validation={"every": 8, "images": 5}, data={"fit": "keep"}
    )
    found = {world: ranks.run(world, measured_twice, config) for world in (1, 2, 3)}
    alone = found[1][0][0]
    assert alone["swd"] == pytest.approx((alone["swd_A2B"] + alone["swd_B2A"]) / 2)
    parts = ("swd", "lab", "ssim", "scene", "inputs_swd", "inputs_lab", "score")
    each_way = {f"{name}_{direction}" for name in parts for direction in ("A2B", "B2A")}
    assert alone.keys() == {"swd", "lab", "score", "score_version", *each_way}
    assert alone["score"] == pytest.approx((alone["score_A2B"] + alone["score_B2A"]) / 2)
    for world, each in found.items():
        assert [first == second == alone for first, second, *_ in each] == [True] * world
        # Every image is read once, by one rank, for both measurements.
        everything = [("testA", index) for index in range(5)] + [("testB", index) for index in range(4)]
        assert sorted(image for _, _, read, _ in each for image in read) == everything
        assert all(read for _, _, read, _ in each)
        assert sorted(levels for *_, levels in each) == {1: [8], 2: [4, 4], 3: [2, 3, 3]}[world]
