import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards import DataError, rank_share
from data_shards.plan import (
    EXTENT_BYTES,
    FEWEST_EXTENTS,
    WINDOW_EXTENTS,
    EpochPlan,
    draws,
    locate,
    make_extents,
    reader_shares,
    track_length,
)


@st.composite
def indexes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(shard, offset, length) of a split whose shards and samples have all kinds of sizes."""
    counts = draw(st.lists(st.integers(1, 60), min_size=1, max_size=5))
    largest = draw(st.sampled_from([2_000, 60_000, 3 * EXTENT_BYTES]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    lengths = [512 * rng.integers(1, largest // 512 + 1, count) for count in counts]
    shard = np.repeat(np.arange(len(counts)), counts)
    return shard, np.concatenate([np.cumsum(own) - own for own in lengths]), np.concatenate(lengths)


def plan_of(index: tuple[np.ndarray, ...], global_batch: int, **key: int) -> EpochPlan:
    return EpochPlan(make_extents(*index), **{"seed": 7, "domain": 0, "epoch": 0} | key, global_batch=global_batch)


def small_plan(samples: int, global_batch: int, **key: int) -> EpochPlan:
    length = np.full(samples, 1024)
    return plan_of((np.zeros(samples, int), np.cumsum(length) - length, length), global_batch, **key)


@given(indexes())
def test_extents_cover_the_samples_in_order_and_stay_within_a_shard(index: tuple[np.ndarray, ...]) -> None:
    shard, _, _ = index
    extents = make_extents(*index)
    assert extents.first[0] == 0
    assert (extents.first[1:] == extents.first[:-1] + extents.count[:-1]).all()
    assert extents.samples == len(shard)
    assert all(len(set(shard[a : a + n].tolist())) == 1 for a, n in zip(extents.first, extents.count, strict=True))


def test_extents_are_about_a_megabyte() -> None:
    length = np.full(100_000, 35_840)
    extents = make_extents(np.zeros(len(length), int), np.cumsum(length) - length, length)
    sizes = extents.count * 35_840
    assert abs(np.median(sizes) - EXTENT_BYTES) < 40_000
    assert sizes.max() < 1.1 * EXTENT_BYTES


def test_a_small_dataset_is_cut_finer_so_that_it_mixes() -> None:
    length = np.full(1000, 10_240)
    extents = make_extents(np.zeros(1000, int), np.cumsum(length) - length, length)
    assert len(extents.first) >= FEWEST_EXTENTS


@given(indexes(), st.integers(1, 40), st.integers(0, 3))
def test_every_sample_comes_once_an_epoch_but_the_remainder(
    index: tuple[np.ndarray, ...], global_batch: int, epoch: int
) -> None:
    samples = len(index[0])
    global_batch = min(global_batch, samples)
    order = plan_of(index, global_batch, epoch=epoch).order()
    assert len(order) == samples // global_batch * global_batch
    assert len(set(order.tolist())) == len(order)
    assert set(order.tolist()) <= set(range(samples))


def test_the_remainder_differs_from_epoch_to_epoch() -> None:
    orders = [set(small_plan(24, 5, epoch=epoch).order().tolist()) for epoch in range(40)]
    assert len({frozenset(range(24)) - order for order in orders}) > 10
    assert set.union(*orders) == set(range(24))


@given(indexes(), st.integers(1, 40), st.integers(1, 8), st.integers(0, 4))
@settings(max_examples=200)
def test_ranks_and_readers_read_the_same_batches_whatever_their_number(
    index: tuple[np.ndarray, ...], global_batch: int, world: int, workers: int
) -> None:
    global_batch = max(world, min(global_batch, len(index[0])))
    if global_batch > len(index[0]):
        return
    plan = plan_of(index, global_batch)
    readers = [
        tracks for rank in range(world) for tracks in reader_shares(rank_share(global_batch, rank, world), workers)
    ]
    # What each reader reads by itself, put side by side, is the order that nobody has divided.
    read = [np.stack([plan.track(track).samples for track in tracks], axis=1) for tracks in readers]
    assert np.array_equal(np.concatenate(read, axis=1).ravel(), plan.order())


@given(st.integers(1, 300), st.integers(1, 64), st.integers(0, 16))
def test_loads_differ_by_at_most_one_sample_a_batch(global_batch: int, world: int, workers: int) -> None:
    if global_batch < world:
        with pytest.raises(DataError, match=f"global_batch {global_batch} is less than the {world} workers"):
            rank_share(global_batch, 0, world)
        return
    ranks = [rank_share(global_batch, rank, world) for rank in range(world)]
    assert [track for tracks in ranks for track in tracks] == list(range(global_batch))
    loads = [len(tracks) for tracks in ranks]
    assert max(loads) - min(loads) <= 1
    if min(loads) >= workers:
        loads = [len(tracks) for share in ranks for tracks in reader_shares(share, workers)]
        assert max(loads) - min(loads) <= 1


def test_six_samples_over_four_ranks() -> None:
    assert [list(rank_share(6, rank, 4)) for rank in range(4)] == [[0, 1], [2], [3, 4], [5]]


def test_a_rank_outside_the_world_is_named() -> None:
    with pytest.raises(DataError, match="rank 4 is not one of the 4 ranks"):
        rank_share(8, 4, 4)


def test_no_reader_is_left_without_a_track() -> None:
    assert reader_shares(range(3, 5), 8) == [range(3, 4), range(4, 5)]


@given(indexes(), st.integers(1, 40), st.data())
def test_a_track_resumes_at_any_place(index: tuple[np.ndarray, ...], global_batch: int, data: st.DataObject) -> None:
    global_batch = min(global_batch, len(index[0]))
    plan = plan_of(index, global_batch)
    track = plan.track(data.draw(st.integers(0, global_batch - 1)))
    place = data.draw(st.integers(0, plan.length))
    rest = np.concatenate([np.empty(0, int), *track.pieces(place)])
    assert rest.tolist() == track.samples[place:].tolist()


@given(st.integers(0, 10**12), st.integers(1, 10**6), st.integers(1, 4096))
def test_positions_are_counted_batch_by_batch_and_epoch_by_epoch(position: int, length: int, global_batch: int) -> None:
    epoch, track, place = locate(position, length, global_batch)
    assert 0 <= track < global_batch
    assert 0 <= place < length
    assert (epoch * length + place) * global_batch + track == position


def test_the_position_of_a_sample_is_where_the_order_has_it() -> None:
    plan = small_plan(50, 7, epoch=2)
    position = 2 * 7 * 7 + 30
    epoch, track, place = locate(position, plan.length, 7)
    assert epoch == 2
    assert plan.track(track).samples[place] == plan.order()[30]


def test_a_window_takes_from_so_many_extents_and_is_shuffled() -> None:
    length = np.full(20_000, 102_400)
    index = (np.zeros(20_000, int), np.cumsum(length) - length, length)
    extents = make_extents(*index)
    track = EpochPlan(extents, seed=1, domain=0, epoch=0, global_batch=16).track(3)
    extent_of = np.repeat(np.arange(len(extents.first)), extents.count)
    windows = list(track.pieces(0))
    assert max(len(set(extent_of[window].tolist())) for window in windows) == WINDOW_EXTENTS
    # Not in the order of the shard: a sorted window would jump only where its extents meet.
    jumps = [np.mean(np.diff(window) != 1) for window in windows if len(window) > 10]
    assert np.mean(jumps) > 0.8


def test_epochs_domains_and_seeds_have_orders_of_their_own() -> None:
    keys = [{}, {"epoch": 1}, {"domain": 1}, {"seed": 8}]
    orders = [small_plan(60, 4, **key).order().tolist() for key in keys]
    assert len({tuple(order) for order in orders}) == 4
    assert orders[0] == small_plan(60, 4).order().tolist()


def test_each_sample_lands_anywhere() -> None:
    """The place of one sample over many epochs is uniform: chi-squared of 12 bins, far below what a bias gives."""
    places = [small_plan(48, 4, epoch=epoch).order().tolist().index(17) // 4 for epoch in range(1200)]
    counts = np.bincount(places, minlength=12)
    assert ((counts - 100) ** 2 / 100).sum() < 32


def test_the_order_is_the_same_with_every_version_of_numpy() -> None:
    assert draws(2, 1, 7, 0, 0).tolist() == [8997270504001465174, 15414052842877605346]
    assert small_plan(12, 3).order().tolist() == [7, 6, 1, 0, 2, 9, 5, 10, 4, 11, 3, 8]


def test_draws_are_keyed_by_each_number() -> None:
    keys = [(1, 2, 3, 4, 5), (2, 2, 3, 4, 5), (1, 3, 3, 4, 5), (1, 2, 4, 4, 5), (1, 2, 3, 5, 5), (1, 2, 3, 4, 6)]
    keys += [(1, 2, 3, 4 + 2**32, 5)]
    assert len({int(draws(1, *key)[0]) for key in keys}) == len(keys)


def test_fewer_samples_than_a_batch_are_refused() -> None:
    with pytest.raises(DataError, match="trainA has 7 samples, fewer than the global batch 8: lower global_batch"):
        track_length(7, 8, "trainA")
