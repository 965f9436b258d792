"""What an autoscaler can add, from its configuration on the head."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.machines import autoscaler
from cluster.machines.autoscaler import machines_to_come, on_the_head
from cluster.settings.workers.capacity import Machine

DEPLOY = Path(__file__).parents[4] / "cluster" / "deploy"


def config(**changes: Any) -> dict[str, Any]:
    kinds = {
        "head": {"resources": {"CPU": 2}, "max_workers": 0},
        "cpu": {"resources": {"CPU": 16}, "max_workers": 3},
        "gpu": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 2},
    }
    return {"head_node_type": "head", "max_workers": 4, "available_node_types": kinds, **changes}


def test_all_that_the_limits_allow_those_with_gpus_first() -> None:
    assert machines_to_come(config(), Counter()) == (Machine(8, 1), Machine(8, 1), Machine(16), Machine(16))
    assert machines_to_come(config(), Counter(gpu=2, cpu=1)) == (Machine(16),)
    assert machines_to_come(config(), Counter(gpu=2, cpu=3)) == ()
    # Of a kind without its own limit as many as the cluster may have, and of one without resources nothing is known.
    unlimited = config(available_node_types={"gpu": {"resources": {"GPU": 1}}, "new": {"max_workers": 1}})
    assert machines_to_come(unlimited, Counter(other=1)) == (Machine(0, 1),) * 3
    assert machines_to_come(None, Counter()) == ()


def test_the_labels_of_machines_to_come_are_known() -> None:
    kinds = {"l4": {"resources": {"CPU": 8, "accelerator_type:L4": 1}, "labels": {"zone": "a"}, "max_workers": 1}}
    (machine,) = machines_to_come(config(available_node_types=kinds), Counter())
    assert (machine.labels, machine.accelerators) == ({"ray.io/node-group": "l4", "zone": "a"}, {"L4"})


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_the_deploy_files_bring_eight_gpus(cloud: str) -> None:
    assert machines_to_come(yaml.safe_load((DEPLOY / f"{cloud}.yaml").read_text()), Counter()) == (Machine(8, 1),) * 8


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine's processes, none of them an autoscaler: other clusters may be on this one."""
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "cmdline").write_bytes(b"/sbin/init\0")
    monkeypatch.setattr(autoscaler, "PROC", tmp_path)
    return tmp_path


def test_the_configuration_is_found_by_the_autoscalers_process(machine: Path) -> None:
    (machine / "autoscaler.yaml").write_text(yaml.safe_dump(config()))
    words = ["python", "-u", "/ray/autoscaler/v2/monitor.py", f"--autoscaling-config={machine / 'autoscaler.yaml'}", ""]
    (machine / "2").mkdir()
    (machine / "2" / "cmdline").write_text("\0".join(words))
    assert on_the_head() == (config(), False)


@pytest.mark.parametrize(("command", "unknown"), [("ray start --head --no-monitor", True), ("ray start --head", False)])
def test_one_beside_the_head_is_known_by_how_the_head_was_started(
    command: str, unknown: bool, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERAY_GEN_RAY_START_CMD", command)
    assert on_the_head() == (None, unknown)
