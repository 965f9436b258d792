"""Data faults on any rank: damaged samples, which count towards one budget, and loader processes that died."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from pydantic import TypeAdapter

from cluster.evaluation.held_out import listed
from cluster.records.observe import MetricsLog
from data_shards import UnpairedStream
from data_shards.storage.checked import checked
from data_shards.stream.tracks import Fault

BAD_SAMPLES = "bad_samples"
# The fingerprint of the dataset that they are of: a fork may have another.
BAD_SAMPLES_OF = "bad_samples_of"
FAULTS = TypeAdapter(list[Fault])


class DataFaults:
    """Shares data faults between the ranks; every rank must call each method except `warn`.

    Args:
        carried: values that are saved with each checkpoint; the damaged samples of all ranks are kept in it.
        dataset: the fingerprint of the dataset.
        every: images seen between two records, and between two checkpoints.
        say: called by rank 0 with what happened.
    """

    def __init__(
        self,
        carried: dict[str, Any],
        dataset: str,
        every: Sequence[int],
        log: MetricsLog,
        say: Callable[[str], None],
    ) -> None:
        self.carried, self.dataset, self.every, self.log, self.say = carried, dataset, every, log, say
        self.world = log.world
        if carried.get(BAD_SAMPLES_OF, dataset) != dataset:
            carried.pop(BAD_SAMPLES, None)
        self._lines: list[str] = []
        self._restarts = 0
        self._count()

    @property
    def known(self) -> list[Fault]:
        """The damaged samples that all ranks know of. Raises: UserError if the carried value is invalid."""
        return checked(FAULTS, self.carried.get(BAD_SAMPLES, []), f"{BAD_SAMPLES} of the checkpoint")

    def warn(self, line: str) -> None:
        """Called by this rank's stream."""
        self._lines.append(line)

    def maybe_share(self, stream: UnpairedStream, images_seen: int) -> None:
        """Share before the next record or checkpoint is written. Raises: UserError when there are too many damaged samples."""
        if any(self.log.clock.due(every, images_seen) for every in self.every):
            self.share(stream)

    def share(self, stream: UnpairedStream) -> None:
        lines, self._lines = self._lines, []
        if not self.world.sum(torch.tensor(len(lines), device=self.world.device)).item():
            return
        faults = list(map(asdict, stream.bad_samples))
        mine: dict[str, Any] = {"lines": lines, "faults": faults, "restarts": stream.loader_restarts}
        ranks = self.world.gather(mine)
        if self.world.rank == 0:
            of_rank = "rank {}: ".format if self.world.size > 1 else lambda rank: ""
            said = [f"{of_rank(rank)}{line}" for rank, each in enumerate(ranks) for line in each["lines"]]
            self.say(listed(said))
        stream.add_bad_samples(Fault(**fault) for each in ranks for fault in each["faults"])
        self._restarts = sum(each["restarts"] for each in ranks)
        self.carried |= {BAD_SAMPLES: list(map(asdict, stream.bad_samples)), BAD_SAMPLES_OF: self.dataset}
        self._count()

    def _count(self) -> None:
        self.log.counts |= {BAD_SAMPLES: len(self.carried.get(BAD_SAMPLES, [])), "loader_restarts": self._restarts}
