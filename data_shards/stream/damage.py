"""Counts the damaged samples of a dataset, and stops the stream when there are too many."""

import math
from collections.abc import Iterable

from data_shards.dataset.manifest import Dataset
from data_shards.errors import UserError
from data_shards.storage import shown
from data_shards.stream.tracks import Fault

LISTED_FAULTS = 5


class Damage:
    """Counts each damaged sample once, even if several ranks or epochs meet it.

    Args:
        budget: the share of a split's samples that may be damaged.
        known: samples that are counted already.
    """

    def __init__(self, dataset: Dataset, budget: float, known: Iterable[Fault] = ()) -> None:
        self._dataset, self._budget = dataset, budget
        self._faults = {(fault.shard, fault.key): fault for fault in known}

    @property
    def faults(self) -> list[Fault]:
        """The damaged samples in a fixed order."""
        return [self._faults[place] for place in sorted(self._faults)]

    def is_new(self, fault: Fault) -> bool:
        """Count a sample; False if it is counted already. Raises: UserError where there are now more than the budget allows."""
        if (fault.shard, fault.key) in self._faults:
            return False
        self._faults[fault.shard, fault.key] = fault
        bad = [known for known in self.faults if known.split == fault.split]
        samples = self._dataset.splits[fault.split].samples
        if len(bad) > math.ceil(self._budget * samples):
            named = "; ".join(str(known) for known in bad[:LISTED_FAULTS])
            raise UserError(
                f"{len(bad)} of the {samples} samples of {fault.split} in {shown(self._dataset.uri)} are damaged, more than "
                f"bad_sample_budget {self._budget:g} allows: {named}"
            )
        return True
