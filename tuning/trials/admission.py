"""Decides when the next trial of a sweep may start: if the cluster has room, or if an autoscaler would add machines."""

import time
from collections import Counter

from cluster.machines.session import cluster_machines
from cluster.settings.workers.capacity import Growth
from cluster.settings.workers.resources import Resources

LOOK_S = 0.5
# Number of trials that may wait for an autoscaler's machines at the same time.
AHEAD = 8


class Admission:
    """Says whether another trial may be handed to Ray Tune, one at a look.

    Ray itself places a trial: its placement group waits until the workers fit, and Ray's autoscaler adds machines for those that
    wait. What waits has been proposed already, so that few trials should.

    Args:
        resources: of each trial.
        growth: what an autoscaler can add to the cluster.
        ahead: how many trials may wait for machines that it adds.
    """

    def __init__(self, resources: Resources, growth: Growth, ahead: int = AHEAD) -> None:
        self.resources = resources
        self.ahead = ahead if growth.machines or growth.unknown else 0
        self._looked = 0.0

    def for_another(self) -> bool:
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            # The previous trial has no placement group yet.
            return False
        self._looked = now
        waiting = waiting_groups()
        return waiting < self.ahead or (waiting == 0 and self.resources.room(cluster_machines()) >= self.resources.most)


def waiting_groups() -> int:
    """Number of placement groups of any job that wait for resources: Ray serves them in order."""
    import ray

    states = Counter(group["state"] for group in ray.util.placement_group_table().values())
    return states["PENDING"] + states["RESCHEDULING"]
