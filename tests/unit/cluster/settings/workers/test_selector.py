"""Which machines are taken, and how a command or a file says it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray._private import label_utils
from ray._private.accelerators.nvidia_gpu import NvidiaGPUAcceleratorManager
from ray.util.accelerators import accelerators

from cluster.settings.options import as_options, parse_options
from cluster.settings.workers.capacity import Growth, Machine
from cluster.settings.workers.resources import choose, shortage
from cluster.settings.workers.scaling import ScalingConfig
from cluster.settings.workers.selector import NVIDIA, Selector, accelerator_named, parse_labels
from data_shards.errors import UserError

DATA = ("--data.uri", "data")


@pytest.mark.parametrize(
    ("condition", "zones"),
    [
        ("a", ["a"]),
        ("!a", ["b", None]),
        ("in(a,b)", ["a", "b"]),
        ("in(a, c)", ["a"]),
        ("!in(a,b)", [None]),
    ],
)
def test_a_machine_is_taken_by_its_labels(condition: str, zones: list[str | None]) -> None:
    machines = {zone: Machine(1, labels={"zone": zone} if zone else {}) for zone in ("a", "b", None)}
    assert [zone for zone, machine in machines.items() if Selector(None, {"zone": condition}).takes(machine)] == zones


def test_a_machine_is_taken_by_its_accelerator_and_all_labels() -> None:
    selector = Selector("H100", {"zone": "a"})
    node = {"Labels": {"zone": "a"}, "Resources": {"CPU": 8.0, "accelerator_type:H100": 1.0}}
    assert selector.takes_node(node)
    assert not selector.takes_node(node | {"Resources": {"accelerator_type:A100": 1.0}})
    assert not selector.takes_node(node | {"Labels": None})
    assert str(selector) == "accelerator H100 and zone=a"


@pytest.mark.parametrize(
    "condition", ["a", "!a", "in(a,b)", "in(a, b)", "!in(a)", "-a", "a-", "!!a", "in()", "in(a", "a b", "A_1.x-2"]
)
def test_the_syntax_is_rays(condition: str) -> None:
    refused = label_utils.validate_label_selector({"key": condition}) is not None
    try:
        assert parse_labels({"key": condition}) == {"key": condition}
    except ValueError:
        assert refused
    else:
        assert not refused


@pytest.mark.parametrize(
    "gpu",
    [
        "NVIDIA H100 80GB HBM3",
        "Tesla V100-SXM2-16GB",
        "NVIDIA A10G",
        "NVIDIA GeForce RTX 4090",
        "NVIDIA RTX PRO 6000 Blackwell",
        "",
    ],
)
def test_an_accelerator_has_rays_name(gpu: str) -> None:
    assert accelerator_named(gpu) == NvidiaGPUAcceleratorManager._gpu_name_to_accelerator_type(gpu)
    assert {value for name, value in vars(accelerators).items() if name.startswith("NVIDIA_")} == set(NVIDIA)


def labels(*options: str) -> dict[str, str]:
    config = parse_options([*DATA, *options]).config
    for defaults in (False, True):
        # As `submit` sends them.
        assert parse_options(as_options(config, defaults=defaults)).config == config
    return config.scaling.labels


def test_labels_on_the_command_line() -> None:
    assert labels("--scaling.labels", "zone=a,disk=in(ssd, nvme)", "--scaling.labels.ray.io/market-type", "!spot") == {
        "zone": "a", "disk": "in(ssd, nvme)", "ray.io/market-type": "!spot",
    }  # fmt: skip
    assert labels("--scaling.labels", '{"zone": "in(a,b)"}', "--scaling.labels=x=y") == {"zone": "in(a,b)", "x": "y"}
    assert labels() == {}


def test_labels_in_a_file_and_over_it(tmp_path: Path) -> None:
    def written(fields: Any) -> tuple[str, str]:
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(fields))
        return "--config", str(tmp_path / "run.yaml")

    assert labels(*written({"scaling": {"labels": {"ray.io/market-type": "spot", "big": True, "rack": 7}}})) == {
        "ray.io/market-type": "spot", "big": "true", "rack": "7",
    }  # fmt: skip
    file = written({"scaling.labels": {"zone": "a", "x.y/z": "w"}})
    assert labels(*file, "--scaling.labels.zone=b") == {"zone": "b", "x.y/z": "w"}
    assert labels(*file, "--scaling.labels", "none", "--scaling.labels", "q=r") == {"q": "r"}


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("labels", "zone", "expected labels as KEY=VALUE, with commas between; got 'zone' on the command line"),
        ("labels", "zone=a b", "expected VALUE, !VALUE, in(VALUE,VALUE) or !in(VALUE,VALUE)"),
        ("labels", "{zone", "expected labels as KEY=VALUE, or as JSON"),
        ("labels.zo ne", "a", "zo ne is not a label key"),
        ("accelerator", "h100", "known to Ray as H100"),
        ("accelerator", "NVIDIA_TESLA_T4", "known to Ray as T4"),
        ("accelerator", "H 100", "expected Ray's name of an accelerator"),
        ("gpus_per_worker", "2", "less than or equal to 1"),
    ],
)
def test_what_is_no_name_is_refused_in_a_line(option: str, value: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_options([*DATA, f"--scaling.{option}", value])
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"scaling.{option.partition('.')[0]}: ")
    assert said in line


H100 = Machine(16, 2, labels={"zone": "a", "ray.io/node-id": "1"}, accelerators=frozenset(["H100"]))
CORES = Machine(64, labels={"zone": "b"})
CLUSTER = [H100, CORES, Machine(128)]


@pytest.mark.parametrize(
    ("scaling", "summary"),
    [
        ({"labels": {"zone": "a"}}, "2 workers on a GPU each, 8 cores each, on machines with zone=a: 2 GPUs on those machines, data.global_batch 8, an even share of the machines"),
        ({"accelerator": "H100", "workers": 1}, "1 worker on a GPU, 16 cores, on machines with accelerator H100: 2 GPUs on those machines, scaling.workers, an even share of the machines"),
        ({"labels": {"zone": "b"}}, "1 worker on CPU, 64 cores, on machines with zone=b: no GPU on those machines, data.global_batch 8, an even share of the machines"),
    ],
)  # fmt: skip
def test_only_machines_that_match_count(scaling: dict[str, Any], summary: str) -> None:
    assert choose(ScalingConfig(**scaling), CLUSTER, global_batch=8).summary == summary


def test_ray_is_asked_for_them() -> None:
    chosen = choose(ScalingConfig(accelerator="H100", labels={"zone": "a"}), CLUSTER, global_batch=8)
    assert chosen.per_worker == {"CPU": 8, "GPU": 1, "accelerator_type:H100": 0.001}
    assert (chosen.accelerator, chosen.labels) == ("H100", {"zone": "a"})


def test_too_few_machines_that_match_are_counted() -> None:
    scaling = ScalingConfig(labels={"zone": "in(a,b)"}, workers=4, gpu=True)
    with pytest.raises(
        UserError, match=r"has 2 machines with zone=in\(a,b\), of 3, with 80 CPU cores and 2 GPUs, room for 2 w"
    ):
        choose(scaling, CLUSTER, global_batch=8)


def test_where_no_machine_matches_a_line_says_what_there_is() -> None:
    with pytest.raises(UserError) as caught:
        choose(ScalingConfig(labels={"zone": "c"}), CLUSTER, global_batch=8)
    assert str(caught.value) == (
        "scaling.labels: no machine of the cluster has zone=c; its 3 machines have zone=a (on 1), zone=b (on 1), accelerator H100 "
        "(on 1); ask for what they have, start machines that have it (ray start --labels KEY=VALUE), or wait for them "
        "(--scaling.wait_s 600)"
    )


def test_machines_that_match_may_still_come() -> None:
    wanted = {"accelerator": "L4", "workers": 2}
    for growth, wait_s in (
        (Growth(unknown=True), None),
        (Growth((Machine(8, 2, accelerators=frozenset(["L4"])),)), None),
        (Growth(), 60),
    ):
        chosen = choose(ScalingConfig(**wanted, wait_s=wait_s), CLUSTER, global_batch=8, growth=growth)
        # An accelerator to come is a GPU.
        assert (chosen.workers, chosen.use_gpu) == (2, True)
        assert "no machine of the cluster has accelerator L4; its 3 machines have" in shortage(chosen, CLUSTER)
    with pytest.raises(UserError, match="no machine of the cluster has accelerator L4"):
        choose(ScalingConfig(**wanted), CLUSTER, global_batch=8, growth=Growth((Machine(8, 1),)))
