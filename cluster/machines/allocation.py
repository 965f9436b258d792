"""The workers of a run on an existing cluster: from free resources, and from what an autoscaler can add."""

import time

from cluster.machines.autoscaler import growth
from cluster.machines.session import cluster_machines
from cluster.settings.workers.capacity import Machine
from cluster.settings.workers.resources import Resources, choose
from cluster.settings.workers.scaling import ScalingConfig
from data_shards.errors import UserError

# Resources in use may belong to a run that has just been killed: they count once they have not changed for STEADY_S.
STEADY_S, LONGEST_S, POLL_S = 5.0, 30.0, 0.5


def choose_workers(scaling: ScalingConfig, *, global_batch: int, joined: bool) -> Resources:
    """Choose workers for the resources that are free in the cluster now, see `resources.choose`; Ray must be running.

    Args:
        joined: whether it is a cluster that others use too, and that an autoscaler may enlarge.

    Raises: UserError when they do not fit, or when scaling.gpu must be said.
    """
    machines = settled_machines()
    try:
        chosen = choose(scaling, machines, global_batch=global_batch)
        fits = chosen.room(machines) >= chosen.fewest
        if not joined or (fits and (chosen.use_gpu or scaling.gpu is not None)):
            return chosen
    except UserError:
        if not joined:
            raise
    # Only now, because the look at the autoscaler starts a process on the head.
    return choose(scaling, machines, global_batch=global_batch, growth=growth())


def settled_machines() -> list[Machine]:
    """The machines of the cluster, once their use has not changed for a while."""
    began = since = time.monotonic()
    machines = cluster_machines()
    while any(machine.busy_cpus or machine.busy_gpus for machine in machines):
        now = time.monotonic()
        if now - since > STEADY_S or now - began > LONGEST_S:
            break
        time.sleep(POLL_S)
        before, machines = machines, cluster_machines()
        if machines != before:
            since = time.monotonic()
    return machines
