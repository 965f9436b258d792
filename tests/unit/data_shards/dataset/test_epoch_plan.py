import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards import rank_share
from data_shards.dataset.epoch_plan import (
    EXTENT_BYTES,
    FEWEST_EXTENTS,
    EpochPlan,
    draws,
    make_extents,
    reader_shares,
    track_length,
)
from data_shards.errors import UserError

Shards = tuple[np.ndarray, np.ndarray]


@st.composite
def layouts(draw: st.DrawFn) -> Shards:
    """(samples, bytes) of each shard of a split whose shards and samples have all kinds of sizes."""
    samples = np.array(draw(st.lists(st.integers(1, 60), min_size=1, max_size=5)))
    largest = draw(st.sampled_from([2_000, 60_000, 3 * EXTENT_BYTES]))
    each = draw(st.lists(st.integers(512, largest), min_size=len(samples), max_size=len(samples)))
    return samples, samples * each


def plan_of(shards: Shards, global_batch: int, **key: int) -> EpochPlan:
    return EpochPlan(make_extents(*shards), **{"seed": 7, "domain": 0, "epoch": 0} | key, global_batch=global_batch)


def one_shard(samples: int, sample_bytes: int) -> Shards:
    return np.array([samples]), np.array([samples * sample_bytes])


def small_plan(samples: int, global_batch: int, **key: int) -> EpochPlan:
    return plan_of(one_shard(samples, 1024), global_batch, **key)


@given(layouts())
def test_extents_cover_the_samples_in_order_and_stay_within_a_shard(shards: Shards) -> None:
    samples, _ = shards
    extents = make_extents(*shards)
    assert extents.first[0] == 0
    assert (extents.first[1:] == extents.first[:-1] + extents.count[:-1]).all()
    assert extents.samples == samples.sum()
    assert (extents.count > 0).all()
    shard = np.repeat(np.arange(len(samples)), samples)
    assert all(len(set(shard[a : a + n].tolist())) == 1 for a, n in zip(extents.first, extents.count, strict=True))
    assert (
        extents.of(np.arange(extents.samples)).tolist()
        == np.repeat(np.arange(len(extents.count)), extents.count).tolist()
    )


def test_extents_are_about_a_megabyte() -> None:
    sizes = make_extents(*one_shard(100_000, 35_840)).count * 35_840
    assert abs(np.median(sizes) - EXTENT_BYTES) < 40_000
    assert sizes.max() < 1.1 * EXTENT_BYTES


def test_samples_larger_than_an_extent_get_one_each() -> None:
    assert make_extents(*one_shard(100, 5 * EXTENT_BYTES)).count.tolist() == [1] * 100


def test_a_small_dataset_is_cut_finer_so_that_it_mixes() -> None:
    assert len(make_extents(*one_shard(1000, 10_240)).first) >= FEWEST_EXTENTS


@given(layouts(), st.integers(1, 40), st.integers(0, 3))
def test_every_sample_comes_once_an_epoch_but_the_remainder(shards: Shards, global_batch: int, epoch: int) -> None:
    samples = int(shards[0].sum())
    global_batch = min(global_batch, samples)
    order = plan_of(shards, global_batch, epoch=epoch).order()
    assert len(order) == samples // global_batch * global_batch
    assert len(set(order.tolist())) == len(order)
    assert set(order.tolist()) <= set(range(samples))


def test_the_remainder_differs_from_epoch_to_epoch() -> None:
    orders = [set(small_plan(24, 5, epoch=epoch).order().tolist()) for epoch in range(40)]
    assert len({frozenset(range(24)) - order for order in orders}) > 10
    assert set.union(*orders) == set(range(24))


@given(layouts(), st.integers(1, 40), st.integers(1, 8), st.integers(0, 4))
@settings(max_examples=200)
def test_ranks_and_readers_read_the_same_batches_whatever_their_number(
    shards: Shards, global_batch: int, world: int, workers: int
) -> None:
    global_batch = max(world, min(global_batch, int(shards[0].sum())))
    if global_batch > shards[0].sum():
        return
    plan = plan_of(shards, global_batch)
    readers = [
        tracks for rank in range(world) for tracks in reader_shares(rank_share(global_batch, rank, world), workers)
    ]
    # What each reader reads by itself, put side by side, is the order that nobody has divided.
    read = [np.stack([plan.track(track).samples for track in tracks], axis=1) for tracks in readers]
    assert np.array_equal(np.concatenate(read, axis=1).ravel(), plan.order())


@given(st.integers(1, 300), st.integers(1, 64), st.integers(0, 16))
def test_loads_differ_by_at_most_one_sample_a_batch(global_batch: int, world: int, workers: int) -> None:
    if global_batch < world:
        with pytest.raises(UserError, match=f"global_batch {global_batch} is less than the {world} workers"):
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
    with pytest.raises(UserError, match="rank 4 is not one of the 4 ranks"):
        rank_share(8, 4, 4)


def test_no_reader_is_left_without_a_track() -> None:
    assert reader_shares(range(3, 5), 8) == [range(3, 4), range(4, 5)]


@given(layouts(), st.integers(1, 40), st.data())
def test_a_track_resumes_at_any_place(shards: Shards, global_batch: int, data: st.DataObject) -> None:
    global_batch = min(global_batch, int(shards[0].sum()))
    plan = plan_of(shards, global_batch)
    track = plan.track(data.draw(st.integers(0, global_batch - 1)))
    place = data.draw(st.integers(0, plan.length))
    rest = np.concatenate([np.empty(0, int), *track.pieces(place)])
    assert rest.tolist() == track.samples[place:].tolist()


def test_the_position_of_a_sample_is_where_the_order_has_it() -> None:
    plan = small_plan(50, 7, epoch=2)
    place, track = divmod(30, 7)
    assert plan.track(track).samples[place] == plan.order()[30]


@pytest.mark.parametrize(("global_batch", "window_extents"), [(1, 4), (16, 4), (32, 2), (64, 1), (256, 1)])
def test_a_window_takes_from_so_many_extents_and_is_shuffled(global_batch: int, window_extents: int) -> None:
    extents = make_extents(*one_shard(100_000, 20_480))
    track = EpochPlan(extents, seed=1, domain=0, epoch=0, global_batch=global_batch).track(global_batch // 3)
    windows = list(track.pieces(0))
    assert max(len(set(extents.of(window).tolist())) for window in windows) == window_extents
    # Not in the order of the shard: a sorted window would jump only where its extents meet.
    jumps = [np.mean(np.diff(window) != 1) for window in windows if len(window) > 10]
    assert np.mean(jumps or 1) > 0.8


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
    with pytest.raises(UserError, match="trainA has 7 samples, fewer than the global batch 8: lower global_batch"):
        track_length(7, 8, "trainA")
