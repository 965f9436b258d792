"""What a cluster's autoscaler can add, read on the head, which alone has the autoscaler's configuration."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from cluster.settings.workers.capacity import NO_GROWTH, Growth, Machine
from cluster.settings.workers.selector import accelerators_of

# Argument of the autoscaler's process, in both versions, as `ray start` and `ray up` start it.
OPTION = "--autoscaling-config="
READ_S = 60.0
PROC = Path("/proc")
# A resource that the head alone has, and the label that Ray gives to machines which its autoscaler started.
HEAD, NODE_TYPE = "node:__internal_head__", "ray.io/node-group"


def growth() -> Growth:
    """What an autoscaler can add to the cluster that this process has joined; NO_GROWTH if there is none."""
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    look = ray.remote(num_cpus=0, resources={HEAD: 0.001})(on_the_head)
    workers = (node for node in ray.nodes() if node["Alive"] and HEAD not in node["Resources"])
    there = Counter(node["Labels"].get(NODE_TYPE) for node in workers)
    try:
        config, unknown = ray.get(look.remote(), timeout=READ_S)
    except (RayError, GetTimeoutError):
        # The head starts no process: only existing machines count.
        return NO_GROWTH
    return Growth(machines_to_come(config, there), unknown) if config or unknown else NO_GROWTH


def on_the_head() -> tuple[dict[str, Any] | None, bool]:
    """The configuration of the autoscaler on this machine, and whether there is an autoscaler with its configuration elsewhere."""
    for arguments in PROC.glob("[0-9]*/cmdline"):
        try:
            words = arguments.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # It has ended.
        files = [word.removeprefix(OPTION) for word in words if word.startswith(OPTION)]
        if files and files[0] and any(word.endswith("monitor.py") for word in words):
            return yaml.safe_load(Path(files[0]).expanduser().read_text("utf-8")), False
    # KubeRay starts the head with this option if an autoscaler runs in a container beside it.
    return None, "--no-monitor" in os.environ.get("KUBERAY_GEN_RAY_START_CMD", "")


def machines_to_come(config: dict[str, Any] | None, there: Counter[str | None]) -> tuple[Machine, ...]:
    """The machines of the node types that may still be started.

    Args:
        config: the autoscaler's, as `ray up` reads it.
        there: number of machines of each node type, without the head.
    """
    if config is None:
        return ()
    room = config.get("max_workers", 0) - sum(there.values())
    machines: list[Machine] = []
    for name, kind in config.get("available_node_types", {}).items():
        if name != config.get("head_node_type"):
            resources = kind.get("resources") or {}
            labels = {NODE_TYPE: name} | (kind.get("labels") or {})
            one = Machine(
                resources.get("CPU", 0), resources.get("GPU", 0), labels=labels, accelerators=accelerators_of(resources)
            )
            machines += [one] * (kind.get("max_workers", room) - there[name])
    # Those with GPUs first, because the cluster's limit may cut off the rest.
    return tuple(sorted(machines, key=lambda machine: -machine.gpus)[: max(room, 0)])
