"""What scores in a run's records were measured by and on: only scores of one basis are comparable."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cluster.records.metrics_file import Record
from nla_cyclegan.metrics.score import names_in
from nla_cyclegan.weights.stored_score import MeasuredOn

SCORE, VERSION, IMAGES_USED = "score", "score_version", "score_images"
"""Of a record with an evaluation: the score, the version of its formula, and held-out images of each domain, at most."""
UNTOUCHED = "inputs_"
"""Followed by a distance and a direction: that of the untouched held-out inputs."""
CLOSE = 0.01
"""Relative difference up to which two distances of untouched inputs are of the same images; devices round differently."""


@dataclass(frozen=True)
class Basis:
    """Of the score in one record."""

    definition: tuple[str, float | None]
    """The distances that it is made of, and the version of the formula."""
    on: MeasuredOn
    untouched: Mapping[str, float] = field(default_factory=dict)
    """Distances of the untouched inputs: those of other images, or at another size, differ."""

    @classmethod
    def of(cls, record: Record, about: Mapping[str, Any]) -> "Basis":
        """Args: about: the run's run.json; its validation.images may have changed since, which newer records have themselves."""
        on = MeasuredOn.by(about)
        if IMAGES_USED in record:
            on = replace(on, images=int(record[IMAGES_USED]))
        untouched = {name: value for name, value in record.items() if name.startswith(UNTOUCHED)}
        names = "+".join(names_in(record)) if SCORE in record else "swd"
        return cls((names, record.get(VERSION)), on, untouched)

    def differences(self, other: "Basis") -> Iterator[tuple[str, ...]]:
        """What makes the scores incomparable, of this one and of the other; what is unknown makes no difference."""
        (names, version), (its_names, its_version) = self.definition, other.definition
        if names != its_names:
            yield "distances in the score", names, its_names
        if version is not None and its_version is not None and version != its_version:
            yield "version of the score", f"{version:g}", f"{its_version:g}"
        is_same = self._same_images(other)
        found = list(self.on.differences(other.on, dataset=not is_same))
        yield from found
        if is_same is False and not found:
            yield "held-out images", *map(_distances, (self.untouched, other.untouched))

    def _same_images(self, other: "Basis") -> bool | None:
        """By the distances of the untouched inputs; None where they are not known."""
        shared = self.untouched.keys() & other.untouched.keys()
        pairs = [(self.untouched[name], other.untouched[name]) for name in shared]
        return all(abs(one - two) <= CLOSE * max(abs(one), abs(two)) for one, two in pairs) if pairs else None


def comparable(evaluated: Sequence[Record], about: Mapping[str, Any]) -> list[Record]:
    """Of records with evaluations those whose scores are comparable with the newest one's, the last."""
    newest = [Basis.of(record, about) for record in evaluated[-1:]]
    return [record for record in evaluated if not any(Basis.of(record, about).differences(newest[0]))]


def stretches(evaluated: Sequence[Record], about: Mapping[str, Any]) -> list[list[Record]]:
    """Records with evaluations, in order, cut where a score is not comparable with the one before."""
    found: list[list[Record]] = []
    for record in evaluated:
        if found and not any(Basis.of(record, about).differences(Basis.of(found[-1][-1], about))):
            found[-1].append(record)
        else:
            found.append([record])
    return found


def _distances(untouched: Mapping[str, float]) -> str:
    return f"untouched at {', '.join(f'{value:.4g}' for _, value in sorted(untouched.items())[:2])}"
