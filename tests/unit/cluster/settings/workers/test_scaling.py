import math
from typing import Any

import pytest
from pydantic import ValidationError

from cluster.settings.workers.capacity import Growth, Machine, places
from cluster.settings.workers.resources import choose, shortage
from cluster.settings.workers.scaling import ScalingConfig
from data_shards.errors import UserError


def test_one_worker_for_each_gpu_when_it_is_left_open() -> None:
    chosen = choose(ScalingConfig(), [Machine(32, 4), Machine(32, 4)], global_batch=16)
    assert (chosen.workers, chosen.per_worker) == (8, {"CPU": 8, "GPU": 1})
    assert "8 GPUs" in chosen.reasons["workers"]


def test_no_more_workers_than_images_in_a_batch() -> None:
    assert choose(ScalingConfig(), [Machine(32, 4)], global_batch=2).workers == 2


def test_one_worker_with_all_cores_when_there_is_no_gpu() -> None:
    chosen = choose(ScalingConfig(), [Machine(6)], global_batch=4)
    assert (chosen.workers, chosen.per_worker, chosen.use_gpu) == (1, {"CPU": 6}, False)


@pytest.mark.parametrize(
    ("machines", "workers", "cores"),
    [([4, 4], 3, 2), ([3, 3], 2, 3), ([3, 3], 3, 1), ([2], 2, 1), ([8, 2], 3, 2)],
)
def test_an_even_share_of_cores_lets_all_workers_fit(machines: list[int], workers: int, cores: int) -> None:
    there = [Machine(cpus) for cpus in machines]
    chosen = choose(ScalingConfig(workers=workers), there, global_batch=8)
    assert chosen.cpus_per_worker == cores
    assert places(there, cores, use_gpu=False) >= workers > places(there, cores + 1, use_gpu=False)


def test_too_many_workers_are_refused_with_what_there_is() -> None:
    with pytest.raises(UserError) as caught:
        choose(ScalingConfig(workers=5), [Machine(2), Machine(2)], global_batch=8)
    line = str(caught.value)
    assert "scaling.workers: 5 workers" in line
    assert "2 machines with 4 CPU cores and 0 GPUs, room for 4 workers" in line


def test_gpus_that_are_not_there_are_refused() -> None:
    with pytest.raises(UserError, match="room for 0 workers"):
        choose(ScalingConfig(workers=1, gpu=True), [Machine(4)], global_batch=8)


def test_machines_that_are_waited_for_need_not_be_there() -> None:
    chosen = choose(ScalingConfig(workers=5, wait_s=60), [Machine(2)], global_batch=8)
    assert (chosen.workers, chosen.per_worker) == (5, {"CPU": 1})
    assert "scaling.workers: 5 workers with 1 CPU core each do not fit: the cluster has 1" in shortage(
        chosen, [Machine(2)]
    )


def test_lost_machines_are_waited_for_even_if_those_of_the_start_are_not() -> None:
    assert ScalingConfig().loss_wait_s == 600
    assert ScalingConfig(wait_s=5).loss_wait_s == 5


def test_part_of_a_core_for_each_worker() -> None:
    chosen = choose(ScalingConfig(workers=4, cpus_per_worker=0.5), [Machine(2)], global_batch=8)
    assert chosen.per_worker == {"CPU": 0.5}


def test_a_group_that_may_shrink_needs_room_for_the_fewest_only() -> None:
    assert choose(ScalingConfig(workers="2,8"), [Machine(2)], global_batch=8).workers == (2, 8)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="3 workers"):
        choose(ScalingConfig(workers="3,8"), [Machine(2)], global_batch=8)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [2.5, True, [1, 2.5], "2.5", 0, (8, 2), ()])
def test_workers_that_are_no_number_are_refused_not_rounded(workers: Any) -> None:
    with pytest.raises(ValidationError, match="expected a number of workers"):
        ScalingConfig(workers=workers)


def test_a_group_that_may_grow_shares_the_cores_that_are_there() -> None:
    chosen = choose(ScalingConfig(workers=(2, 16)), [Machine(32, 4), Machine(32, 4)], global_batch=16)
    assert (chosen.workers, chosen.per_worker) == ((2, 16), {"CPU": 8, "GPU": 1})


def test_gpus_are_used_only_where_they_are_the_plan() -> None:
    chosen = choose(ScalingConfig(gpu=False), [Machine(8, 2)], global_batch=8)
    assert (chosen.use_gpu, chosen.per_worker) == (False, {"CPU": 8})
    assert chosen.summary.startswith("1 worker on CPU, 8 cores: scaling.gpu false, ")


@pytest.mark.parametrize(
    ("scaling", "machines", "summary"),
    [
        ({"workers": 2}, [Machine(2)], "2 workers on CPU, 1 core each: no GPU in the cluster, scaling.workers, an even share of the machines"),
        ({}, [Machine(2)], "1 worker on CPU, 2 cores: no GPU in the cluster, data.global_batch 8, an even share of the machines"),
        ({}, [Machine(16, 2)], "2 workers on a GPU each, 8 cores each: 2 GPUs in the cluster, data.global_batch 8, an even share of the machines"),
        ({"workers": (2, 4), "gpu": True, "cpus_per_worker": 0.5}, [Machine(16, 2)], "2 to 4 workers on a GPU each, 0.5 cores each: scaling.gpu true, scaling.workers, scaling.cpus_per_worker"),
    ],
)  # fmt: skip
def test_the_plan_is_one_line_with_its_reasons(scaling: dict[str, Any], machines: list[Machine], summary: str) -> None:
    assert choose(ScalingConfig(**scaling), machines, global_batch=8).summary == summary


def test_workers_are_chosen_from_what_is_free() -> None:
    busy = [Machine(2, 1, busy_cpus=6, busy_gpus=1), Machine(0, 0, busy_cpus=8, busy_gpus=2)]
    chosen = choose(ScalingConfig(), busy, global_batch=8)
    assert (chosen.workers, chosen.per_worker) == (1, {"CPU": 2, "GPU": 1})
    assert "1 free GPU in the cluster" in chosen.summary
    with pytest.raises(UserError) as caught:
        choose(ScalingConfig(workers=3), busy, global_batch=8)
    assert "2 machines with 16 CPU cores and 4 GPUs (14 cores and 3 GPUs of them in use), room for 1 worker" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("machines", "workers", "seen"),
    [
        ([Machine(1, 4)], 1, "4 GPUs in the cluster, free cores for 1 of them, data.global_batch 8"),
        ([Machine(0, 2, 8), Machine(4, 2)], 2, "4 GPUs in the cluster, free cores for 2 of them, data.global_batch 8"),
        ([Machine(4, 0.5, 0, 0.5), Machine(4, 0.5, 0, 0.5), Machine(4, 1)], 1, "2 free GPUs in the cluster, data.global_batch 8"),
    ],
)  # fmt: skip
def test_a_worker_has_a_whole_gpu_and_a_core_that_are_free(machines: list[Machine], workers: int, seen: str) -> None:
    chosen = choose(ScalingConfig(), machines, global_batch=8)
    assert (chosen.workers, chosen.use_gpu, chosen.reasons["workers"]) == (workers, True, seen)


def test_a_gpu_that_others_use_a_part_of_is_no_reason_to_train_on_the_cpu() -> None:
    with pytest.raises(
        UserError, match=r"1 worker with 1 CPU core and a GPU each does not fit: .* and 1 GPU \(.* in use\)"
    ):
        choose(ScalingConfig(), [Machine(4, 0.5, 0, 0.5)], global_batch=8)


def test_more_workers_than_an_autoscaler_can_add() -> None:
    growth = Growth((Machine(8, 1),) * 4)
    with pytest.raises(
        UserError, match=r"room for 0 workers, and its autoscaler can add 4 machines; lower scaling\.workers"
    ):
        choose(ScalingConfig(workers=6, gpu=True), [Machine(2)], global_batch=8, growth=growth)


@pytest.mark.parametrize("field", ["cpus_per_worker", "timeout_s"])
@pytest.mark.parametrize("value", [math.inf, math.nan, 0, 1e300])
def test_what_no_clock_or_machine_counts_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValidationError, match=field):
        ScalingConfig.model_validate({field: value})


def test_gpus_that_are_all_in_use_are_no_reason_for_cpu_cores() -> None:
    with pytest.raises(
        UserError, match=r"1 worker with 1 CPU core and a GPU each does not fit.* 2 GPUs of them in use"
    ):
        choose(ScalingConfig(), [Machine(8, 0, busy_gpus=2)], global_batch=8)


COMING = Growth((Machine(8, 1),) * 4)


def test_a_head_alone_does_not_train_where_machines_with_gpus_may_come() -> None:
    for growth in (COMING, Growth(unknown=True)):
        with pytest.raises(UserError, match=r"scaling.gpu: no GPU in the cluster yet.* --scaling.gpu true.* false"):
            choose(ScalingConfig(), [Machine(2)], global_batch=8, growth=growth)
    for gpu in (False, True):
        assert choose(ScalingConfig(gpu=gpu), [Machine(2)], global_batch=8, growth=COMING).use_gpu is gpu
    # Where its kind of machine has come, or brings no GPU, there is nothing to ask.
    assert not choose(ScalingConfig(), [Machine(2)], global_batch=8, growth=Growth((Machine(8),))).use_gpu
    assert not choose(ScalingConfig(), [Machine(2), Machine(8)], global_batch=8, growth=Growth(unknown=True)).use_gpu
    assert choose(ScalingConfig(), [Machine(2), Machine(8, 1)], global_batch=8, growth=COMING).workers == 1


def test_machines_to_come_count_where_those_there_do_not_suffice() -> None:
    chosen = choose(ScalingConfig(workers=4, gpu=True), [Machine(2)], global_batch=8, growth=COMING)
    assert chosen.per_worker == {"CPU": 8, "GPU": 1}
    with pytest.raises(UserError, match="5 workers"):
        choose(ScalingConfig(workers=5, gpu=True), [Machine(2)], global_batch=8, growth=COMING)
    assert (
        choose(ScalingConfig(workers=2), [Machine(2)], global_batch=8, growth=Growth((Machine(8),))).cpus_per_worker
        == 1
    )
