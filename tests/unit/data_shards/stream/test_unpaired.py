import gc
import logging
import math
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_folders import REAL, ROOT, make_dataset, make_folder, picture
from live_processes import members, wait_until
from pydantic import ValidationError

from data_shards import Dataset, StreamConfig, UnpairedBatch, UnpairedStream, open_dataset
from data_shards.dataset.epoch_plan import EpochPlan
from data_shards.dataset.rows import IndexRows, Row
from data_shards.errors import UserError
from data_shards.images.fit import Fit
from data_shards.images.transforms import augment, decode
from data_shards.packing.pack import pack
from data_shards.storage import RangeReader, locate
from data_shards.stream.loaders import ThreadLoader
from data_shards.stream.tracks import Part

CONFIG = StreamConfig(load_size=36, crop_size=32, loader_workers=0)
COUNT_A, COUNT_B = 22, 31


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("data"), {"trainA": COUNT_A, "trainB": COUNT_B})


def stream(dataset: Dataset, config: StreamConfig = CONFIG, **options: int) -> UnpairedStream:
    return UnpairedStream(dataset, config, **{"seed": 3, "global_batch": 6} | options)


def split_rows(dataset: Dataset, split: str) -> list[Row]:
    where = dataset.split(split)
    index = IndexRows(RangeReader(locate(dataset.uri)), dataset)
    return index.read(where.first_row, where.first_row + len(where))


def take(dataset: Dataset, count: int, config: StreamConfig = CONFIG, **options: int) -> list[UnpairedBatch]:
    with stream(dataset, config, **options) as batches:
        return list(islice(batches, count))


def same(one: UnpairedBatch, two: UnpairedBatch) -> bool:
    return (
        torch.equal(one.a, two.a) and torch.equal(one.b, two.b) and (one.keys_a, one.keys_b) == (two.keys_a, two.keys_b)
    )


def joined(parts: list[UnpairedBatch]) -> UnpairedBatch:
    return UnpairedBatch(
        torch.cat([part.a for part in parts]),
        torch.cat([part.b for part in parts]),
        [key for part in parts for key in part.keys_a],
        [key for part in parts for key in part.keys_b],
    )


# The sequence


def test_a_batch_is_what_the_plan_says(dataset: Dataset) -> None:
    batches = take(dataset, 5)
    for domain, split in enumerate(("trainA", "trainB")):
        where, rows = dataset.split(split), split_rows(dataset, split)
        order = [
            row
            for epoch in (0, 1)
            for row in EpochPlan(where.extents, seed=3, domain=domain, epoch=epoch, global_batch=6).order()
        ]
        for position in range(5 * 6):
            batch = batches[position // 6]
            images, keys = ((batch.a, batch.keys_a), (batch.b, batch.keys_b))[domain]
            key = rows[order[position]].key
            assert keys[position % 6] == key
            data = (Path(dataset.uri).parent / "images" / split / f"{key}.jpg").read_bytes()
            options = {"load_size": 36, "crop_size": 32, "flip": True, "seed": 3, "domain": domain}
            assert torch.equal(images[position % 6], augment(decode(data), position=position, **options))


@pytest.mark.parametrize("fit", ["stretch", "keep", "crop"])
def test_small_and_long_images_are_resized_like_the_others(fit: Fit, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", {"trainA": 4, "trainB": 4})
    picture(77, 7, 5).save(folder / "trainA" / "small.png")
    picture(78, 900, 9).save(folder / "trainA" / "strip.png")
    pack(folder, str(tmp_path / "shards"))
    config = CONFIG.model_copy(update={"fit": fit})
    (batch,) = take(open_dataset(tmp_path / "shards"), 1, config, global_batch=4)
    (other,) = take(open_dataset(tmp_path / "shards"), 1, CONFIG, global_batch=4)
    seen = {
        key: image
        for b in take(open_dataset(tmp_path / "shards"), 3, config, global_batch=4)
        for key, image in zip(b.keys_a, b.a, strict=True)
    }
    assert {"small", "strip"} <= seen.keys()
    assert batch.keys_a == other.keys_a
    assert torch.equal(batch.a, other.a) == (fit == "stretch")


def test_batches_are_uint8_of_the_crop_size(dataset: Dataset) -> None:
    (batch,) = take(dataset, 1)
    assert batch.a.shape == batch.b.shape == (6, 3, 32, 32)
    assert batch.a.dtype == batch.b.dtype == torch.uint8


def test_every_image_comes_once_an_epoch_in_each_domain(dataset: Dataset) -> None:
    batches = take(dataset, 15)
    for attribute, count in (("keys_a", COUNT_A), ("keys_b", COUNT_B)):
        length = count // 6
        for epoch in range(15 // length):
            part = batches[epoch * length : (epoch + 1) * length]
            seen = Counter(key for batch in part for key in getattr(batch, attribute))
            assert set(seen.values()) == {1}
            assert len(seen) == length * 6


@pytest.mark.parametrize("world", [2, 3, 4, 6])
def test_the_batches_are_the_same_for_every_world(dataset: Dataset, world: int) -> None:
    whole = take(dataset, 9)
    ranks = [take(dataset, 9, rank=rank, world=world) for rank in range(world)]
    assert all(same(batch, joined(list(parts))) for batch, parts in zip(whole, zip(*ranks, strict=True), strict=True))


@pytest.mark.parametrize(("workers", "prefetch"), [(1, 1), (2, 1), (2, 4), (3, 2)])
def test_the_batches_are_the_same_with_loader_processes(dataset: Dataset, workers: int, prefetch: int) -> None:
    config = CONFIG.model_copy(update={"loader_workers": workers, "prefetch": prefetch})
    whole = take(dataset, 40)
    # Kept until the end: a batch owns its memory, whatever the processes write meanwhile.
    assert all(same(*pair) for pair in zip(whole, take(dataset, 40, config), strict=True))


def test_ranks_with_loader_processes_share_the_batches(dataset: Dataset) -> None:
    config = CONFIG.model_copy(update={"loader_workers": 2})
    whole = take(dataset, 9)
    ranks = [take(dataset, 9, config, rank=rank, world=2) for rank in range(2)]
    assert all(same(batch, joined(list(parts))) for batch, parts in zip(whole, zip(*ranks, strict=True), strict=True))


@pytest.mark.parametrize("batches_seen", range(1, 11))
def test_a_stream_resumes_from_any_batch(dataset: Dataset, batches_seen: int) -> None:
    whole = take(dataset, 14)
    resumed = take(dataset, 14 - batches_seen, start_images=6 * batches_seen)
    assert all(same(*pair) for pair in zip(whole[batches_seen:], resumed, strict=True))


def test_a_stream_resumes_with_another_world(dataset: Dataset) -> None:
    whole = take(dataset, 8)
    ranks = [take(dataset, 3, start_images=30, rank=rank, world=4) for rank in range(4)]
    assert all(same(batch, joined(list(p))) for batch, p in zip(whole[5:], zip(*ranks, strict=True), strict=True))


def test_the_domains_are_not_paired(dataset: Dataset) -> None:
    """Over the epochs an A meets many a B: pairs that repeat would be learned."""
    pairs = [pair for batch in take(dataset, 60) for pair in zip(batch.keys_a, batch.keys_b, strict=True)]
    assert max(Counter(pairs).values()) <= 6
    assert len(set(pairs)) > 0.6 * len(pairs)


def test_other_splits_can_be_streamed(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, {"testA": 4, "testB": 5})
    with UnpairedStream(dataset, CONFIG, seed=0, global_batch=2, split_a="testA", split_b="testB") as batches:
        assert len(next(batches).keys_a) == 2


def test_neither_the_trainers_generator_nor_its_threads_notice(dataset: Dataset) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    for workers in (0, 1):
        torch.manual_seed(7)
        take(dataset, 2, CONFIG.model_copy(update={"loader_workers": workers}))
        assert torch.equal(torch.rand(3), expected)
    seen = []
    torch.set_num_threads(3)
    try:
        with stream(dataset) as batches:
            next(batches)
            assert torch.get_num_threads() == 3
            thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
            thread.start()
            thread.join()
    finally:
        torch.set_num_threads(1)
    assert seen == [3]


def test_real_images(tmp_path: Path) -> None:
    if not REAL.is_dir():
        pytest.skip(f"no monet2photo at {REAL} (or set MONET2PHOTO_DIR)")
    for split in ("trainA", "trainB"):
        (tmp_path / "images" / split).mkdir(parents=True)
        for path in sorted((REAL / split).iterdir())[:40]:
            (tmp_path / "images" / split / path.name).symlink_to(path)
    pack(tmp_path / "images", str(tmp_path / "shards"))
    dataset = open_dataset(tmp_path / "shards")
    batches = take(dataset, 10, StreamConfig(loader_workers=0), global_batch=4)
    assert batches[0].a.shape == (4, 3, 256, 256)
    keys = [key for batch in batches for key in batch.keys_b]
    assert len(set(keys)) == 40
    assert all(" " not in key for key in keys)


# What is refused


def refusal(dataset: Dataset, config: StreamConfig = CONFIG, **options: int) -> str:
    with pytest.raises(UserError) as caught:
        stream(dataset, config, **options)
    return str(caught.value)


def test_a_domain_that_is_missing_is_named(tmp_path: Path) -> None:
    assert "has no trainB, only trainA" in refusal(make_dataset(tmp_path, {"trainA": 6}))


def test_a_batch_larger_than_a_split_is_refused(dataset: Dataset) -> None:
    message = refusal(dataset, global_batch=23)
    assert "trainA" in message
    assert "has 22 samples, fewer than the global batch 23: lower global_batch" in message


def test_more_ranks_than_samples_in_a_batch_are_refused(dataset: Dataset) -> None:
    assert "global_batch 6 is less than the 7 workers" in refusal(dataset, world=7)


def test_a_start_between_two_batches_is_refused(dataset: Dataset) -> None:
    assert "start_images 7 is not a multiple of the global batch 6" in refusal(dataset, start_images=7)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_out_of_range(dataset: Dataset, seed: int) -> None:
    assert f"seed {seed} is out of range" in refusal(dataset, seed=seed)


@pytest.mark.parametrize(
    "values",
    [
        *({"crop_size": 300}, {"crop_size": 0}, {"loader_workers": -1}, {"prefetch": 0}, {"load": 286}),
        *({"loader_workers": 10**6}, {"prefetch": 10**6}, {"load_size": 10**6}),
        *({"cache_gb": value} for value in (-1.0, 1e300, math.inf, math.nan)),
    ],
)
def test_configs_out_of_range(values: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        StreamConfig(**values)


# Damage


@pytest.fixture
def damaged(tmp_path: Path) -> Dataset:
    """Two of trainB's 31 samples have a flipped byte."""
    dataset = make_dataset(tmp_path, {"trainA": COUNT_A, "trainB": COUNT_B})
    with (Path(dataset.uri) / "trainB-000000.tar").open("r+b") as shard:
        for row in (4, 20):
            shard.seek(split_rows(dataset, "trainB")[row].offset + 700)
            byte = shard.read(1)[0]
            shard.seek(-1, 1)
            shard.write(bytes([byte ^ 1]))
    return dataset


TOLERANT = CONFIG.model_copy(update={"bad_sample_budget": 0.05})


def test_a_bad_sample_is_replaced_by_one_of_its_own_track(damaged: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), stream(damaged, TOLERANT) as batches:
        seen = list(islice(batches, 20))
        assert {fault.key for fault in batches.bad_samples} == {"0004", "0020"}
    assert not {"0004", "0020"} & {key for batch in seen for key in batch.keys_b}
    assert sorted(record.message for record in caplog.records if "bad sample" in record.message) == [
        f"bad sample replaced by another: trainB-000000.tar: {key}: its checksum is not the one in the index"
        for key in ("0004", "0020")
    ]
    where, rows = damaged.split("trainB"), split_rows(damaged, "trainB")
    for number, batch in enumerate(seen):
        epoch, place = divmod(number, COUNT_B // 6)
        plan = EpochPlan(where.extents, seed=3, domain=1, epoch=epoch, global_batch=6)
        for track, key in enumerate(batch.keys_b):
            after = np.roll(plan.track(track).samples, -place).tolist()
            assert key == next(rows[row].key for row in after if row not in (4, 20))


@pytest.mark.parametrize("workers", [0, 2])
def test_damage_gives_the_same_batches_for_every_world(damaged: Dataset, workers: int) -> None:
    config = TOLERANT.model_copy(update={"loader_workers": workers})
    whole = take(damaged, 10, TOLERANT)
    ranks = [take(damaged, 10, config, rank=rank, world=2) for rank in range(2)]
    assert all(same(batch, joined(list(parts))) for batch, parts in zip(whole, zip(*ranks, strict=True), strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_past_the_budget_the_stream_stops_and_names_them(damaged: Dataset, workers: int) -> None:
    config = CONFIG.model_copy(update={"bad_sample_budget": 0.03, "loader_workers": workers})
    with stream(damaged, config) as batches, pytest.raises(UserError) as caught:
        for _ in islice(batches, 20):
            pass
    message = str(caught.value)
    assert message.startswith("2 of the 31 samples of trainB in ")
    assert "more than bad_sample_budget 0.03 allows" in message
    assert "trainB-000000.tar: 0004: its checksum" in message
    assert "\n" not in message
    with pytest.raises(UserError, match="ended with a UserError"):
        next(batches)


def test_without_a_budget_the_first_bad_sample_stops_the_stream(damaged: Dataset) -> None:
    config = CONFIG.model_copy(update={"bad_sample_budget": 0.0})
    with stream(damaged, config) as batches, pytest.raises(UserError, match=r"^1 of the 31 samples of trainB"):
        list(islice(batches, 10))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_missing_shard_stops_the_stream_with_one_line(tmp_path: Path, workers: int) -> None:
    dataset = make_dataset(tmp_path, {"trainA": 6, "trainB": 6})
    (tmp_path / "shards" / "trainB-000000.tar").unlink()
    config = CONFIG.model_copy(update={"loader_workers": workers})
    with stream(dataset, config) as batches, pytest.raises(UserError) as caught:
        next(batches)
    message = str(caught.value)
    assert message == f"trainB-000000.tar of {dataset.uri} is missing: pack the dataset again"


# The end


def reading_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("data_shards")]


def test_a_closed_stream_ends_and_leaves_no_thread(dataset: Dataset) -> None:
    batches = stream(dataset)
    next(batches)
    batches.close()
    batches.close()
    assert list(batches) == []
    wait_until(lambda: not reading_threads())


def test_a_stream_that_was_interrupted_says_so_when_it_is_read_again(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: ThreadLoader) -> None:
        raise KeyboardInterrupt

    batches = stream(dataset)
    monkeypatch.setattr(ThreadLoader, "next", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(batches)
    with pytest.raises(
        UserError, match="ended with a KeyboardInterrupt; to continue, make another one with start_images"
    ):
        list(batches)
    wait_until(lambda: not reading_threads())


def test_a_forgotten_stream_leaves_no_thread(dataset: Dataset) -> None:
    batches = stream(dataset)
    next(batches)
    del batches
    gc.collect()
    wait_until(lambda: not reading_threads())


def test_a_consumer_that_raises_leaves_no_thread(dataset: Dataset) -> None:
    def consume() -> None:
        with stream(dataset) as batches:
            for _ in batches:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        consume()
    wait_until(lambda: not reading_threads())


def test_a_dataset_and_a_config_survive_pickling(dataset: Dataset) -> None:
    again = pickle.loads(pickle.dumps(dataset))
    assert same(take(again, 1, pickle.loads(pickle.dumps(CONFIG)))[0], take(dataset, 1)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "s3://bucket/monet"}, "dataset is a str; expected what open_dataset"),
        ({"config": {"load_size": 36}}, "config is a dict; expected a StreamConfig"),
        ({"start_images": 6.0}, "start_images is 6.0; expected an integer"),
        ({"global_batch": "6"}, "global_batch is '6'; expected an integer"),
    ],
)
def test_an_argument_of_another_type_is_named(dataset: Dataset, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        UnpairedStream(**{"dataset": dataset, "config": CONFIG, "seed": 3, "global_batch": 6} | options)


def test_integers_of_numpy_and_torch_are_integers(dataset: Dataset) -> None:
    options = {"seed": np.uint8(3), "global_batch": np.int32(6), "start_images": torch.tensor(6), "world": np.int64(2)}
    assert same(take(dataset, 1, **options)[0], take(dataset, 1, start_images=6, world=2)[0])


def test_a_fork_neither_reads_nor_ends_the_stream_of_its_parent(dataset: Dataset) -> None:
    with stream(dataset) as batches:
        next(batches)
        child = os.fork()
        if not child:
            try:
                next(batches)
            except UserError as error:
                batches.close()
                os._exit(7 if "the process that made it" in str(error) else 1)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert same(next(batches), take(dataset, 1, start_images=6)[0])


def test_threads_that_share_a_stream_take_their_batches_one_after_the_other(dataset: Dataset) -> None:
    taken: list[int] = []
    inside = threading.Semaphore(1)
    with stream(dataset) as batches, ThreadPoolExecutor(4) as threads:
        one = batches._loader.next

        def alone() -> Part:
            # Two at once would each get a part of what a loader process sends.
            assert inside.acquire(blocking=False)
            time.sleep(0.01)
            taken.append(len(taken))
            inside.release()
            return one()

        batches._loader.next = alone  # type: ignore[method-assign]
        found = list(threads.map(lambda _: next(batches).keys_a, range(12)))
    assert sorted(found) == sorted(batch.keys_a for batch in take(dataset, 12))


def test_a_worker_of_a_pool_is_told_that_it_may_start_no_processes(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="loader_workers 0 reads in a thread"):
        take(dataset, 1, CONFIG.model_copy(update={"loader_workers": 1}))
    assert take(dataset, 1)


PROGRAM = """
import os, signal, sys
from data_shards import StreamConfig, UnpairedStream, open_dataset

if __name__ == "__main__":
    config = StreamConfig(load_size=36, crop_size=32, loader_workers=int(sys.argv[2]))
    batches = UnpairedStream(open_dataset(sys.argv[1]), config, seed=3, global_batch=6)
    # The loader processes are on their way with the first batch, and at work with those after the prefetched ones.
    for _ in range(int(sys.argv[3])):
        next(batches)
    print("read", flush=True)
    if sys.argv[4] == "raise":
        for _ in batches:
            raise ZeroDivisionError
    if sys.argv[4] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.slow), 6])
@pytest.mark.parametrize(
    ("workers", "how", "status"),
    [
        pytest.param(0, "end", 0, marks=pytest.mark.slow),
        pytest.param(2, "end", 0, marks=pytest.mark.slow),
        pytest.param(2, "raise", 1, marks=pytest.mark.slow),
        (2, "kill", -9),
    ],
)
def test_a_program_that_ends_leaves_no_process(
    dataset: Dataset, tmp_path: Path, count: int, workers: int, how: str, status: int
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(tmp_path / "program.py"), dataset.uri, str(workers), str(count), how]
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "read\n", (tmp_path / "errors").read_text()
        assert process.wait(timeout=240) == status, (tmp_path / "errors").read_text()
    wait_until(lambda: not members(process.pid))
    said = (tmp_path / "errors").read_text()
    assert ("ZeroDivisionError" in said) == (how == "raise")
    assert how == "kill" or said.count("Traceback") == (how == "raise")


def test_ctrl_c_reaches_the_consumer(dataset: Dataset) -> None:
    def consume() -> None:
        with stream(dataset) as batches:
            for _ in batches:
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        consume()
    wait_until(lambda: not reading_threads())
