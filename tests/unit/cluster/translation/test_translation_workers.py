"""How many workers translate on which machines, and how the images are dealt to them."""

import pyarrow as pa
import pytest

from cluster.settings.workers.capacity import NO_GROWTH, Growth, Machine
from cluster.settings.workers.selector import Selector
from cluster.translation.calls import calls, received, sent
from cluster.translation.options import parse
from cluster.translation.workers import Workers, choose
from data_shards.errors import UserError

CORES, GPUS = Machine(8), Machine(16, 4)
ANY = (1, None)
UNKNOWN = Growth(unknown=True)


@pytest.mark.parametrize(
    ("machines", "options", "expected"),
    [
        ([Machine(2)], {}, Workers(2, False, 1, 1, 1)),
        ([CORES], {}, Workers(4, False, 1, 2, 2)),
        ([CORES], {"cpus": 1.0}, Workers(1, False, 1, 8, 8)),
        ([CORES], {"cpus": 1.0, "limits": (1, 3)}, Workers(1, False, 1, 3, 3)),
        ([GPUS], {}, Workers(4, True, 1, 4, 4)),
        ([GPUS, CORES], {"joined": True}, Workers(4, True, 1, 4, None)),
        ([GPUS, CORES], {"gpu": False}, Workers(4, False, 1, 6, 6)),
        ([GPUS], {"cpus": 8.0}, Workers(8, True, 1, 2, 2)),
        ([CORES], {"joined": True, "limits": (2, 40)}, Workers(4, False, 2, 2, 40)),
    ],
)
def test_workers(machines, options, expected) -> None:
    given = {"cpus": None, "gpu": None, "limits": ANY, "joined": False} | options
    limits, cpus, gpu = (given.pop(name) for name in ("limits", "cpus", "gpu"))
    assert choose(machines, NO_GROWTH, limits, cpus, gpu, **given) == expected


def test_machines_that_an_autoscaler_may_add_count() -> None:
    chosen = choose([Machine(2)], Growth((GPUS,)), ANY, None, True, joined=True)
    assert chosen == Workers(4, True, 1, 1, None)
    assert choose([Machine(2)], UNKNOWN, ANY, 64, None, joined=True).cpus == 64


def test_only_machines_with_the_labels_count() -> None:
    there = [Machine(8, labels={"zone": "a"}), Machine(64, 8), Machine(4, accelerators=frozenset(["L4"]))]
    chosen = choose(there, NO_GROWTH, ANY, None, None, Selector(None, {"zone": "a"}), joined=True)
    assert (chosen.at_once, chosen.cpus, chosen.use_gpu) == (2, 4, False)
    assert chosen.per_worker == {"num_cpus": 4, "num_gpus": 0, "label_selector": {"zone": "a"}}
    assert str(chosen) == "2 workers with 4 cores each, on machines with zone=a"
    assert choose(there, NO_GROWTH, ANY, None, None, Selector("L4"), joined=True).per_worker["accelerator_type"] == "L4"
    with pytest.raises(
        UserError,
        match=r"--accelerator, --labels: no machine of the cluster has zone=b; its 3 machines have zone=a \(on 1\)",
    ):
        choose(there, NO_GROWTH, ANY, None, None, Selector(None, {"zone": "b"}), joined=True)
    assert choose(there, UNKNOWN, ANY, None, None, Selector(None, {"zone": "b"}), joined=True).most is None


def test_labels_are_options() -> None:
    given = ["--weights", "w", "in", "out", "--labels", "zone=in(a,b)", "--labels", "disk=ssd", "--accelerator", "L4"]
    assert parse(given).selector == Selector("L4", {"zone": "in(a,b)", "disk": "ssd"})
    with pytest.raises(UserError) as caught:
        parse(["--weights", "w", "in", "out", "--labels", "zone", "--accelerator", "l4"])
    assert [line.partition(": ")[0] for line in str(caught.value).splitlines()] == ["--labels", "--accelerator l4"]


def test_two_spellings_of_one_folder_are_one_and_what_cannot_be_meant_is_refused() -> None:
    options = parse(["--weights", "w", "/a/b/", "/a/c/../b"])
    assert options.source == options.out == "/a/b"
    for wrong in (["--weights", "w", "", "out"], ["--weights", "w", "in", "out", "--cpus", "nan"]):
        with pytest.raises(UserError, match=r"^the path is empty|^--cpus nan: expected more than 0"):
            parse(wrong)


@pytest.mark.parametrize(("cpus", "gpu"), [(64.0, None), (None, True)])
def test_a_worker_that_no_machine_holds_is_refused(cpus, gpu) -> None:
    with pytest.raises(UserError, match=r"no machine has .* for a worker; the largest has 8 cores, the cluster 0 GPUs"):
        choose([CORES], NO_GROWTH, ANY, cpus, gpu, joined=True)


@pytest.mark.parametrize(("count", "workers", "size"), [(1, 1, 1), (10, 2, 2), (1000, 2, 32), (7, 8, 1)])
def test_each_image_is_in_one_call_and_each_worker_has_several(count, workers, size) -> None:
    names = [str(index) for index in range(count)]
    table = pa.table({"name": names, "target": names, "size": [1] * count})
    dealt = [
        received(sent(call))["name"].to_pylist() for call in calls(table, 8, Workers(1, False, 1, workers, workers))
    ]
    assert [name for names in dealt for name in names] == names
    # Of the last columns only: what is sent does not grow with the table.
    assert max(map(len, dealt)) <= 32
    assert len(dealt[0]) == size or count == 10
