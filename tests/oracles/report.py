"""What came of one case."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from oracles.difference import Difference

Result = Literal["equal", "differs", "not supported", "broke"]


@dataclasses.dataclass(frozen=True)
class Report:
    """One case and all that was compared of it."""

    name: str
    result: Result
    outputs: Sequence[Difference] = ()
    losses: Sequence[Difference] = ()
    gradients: Sequence[Difference] = ()
    weights: Sequence[Difference] = ()
    """There and back through the name map, which has to be exact."""
    sentences: Sequence[str] = ()
    """Why it is not supported, or broke; else what differs besides the numbers."""
    notes: Sequence[str] = ()
    """What was taken for granted, or left out."""

    def all(self) -> list[Difference]:
        return [*self.outputs, *self.losses, *self.gradients, *self.weights]

    def failures(self) -> list[str]:
        """Sentences, the worst difference first."""
        worst = sorted((d for d in self.all() if not d.within), key=lambda d: -d.of_limit)
        return [*self.sentences, *(d.sentence for d in worst)]


def make_report(
    name: str,
    outputs: Sequence[Difference],
    losses: Sequence[Difference],
    gradients: Sequence[Difference],
    weights: Sequence[Difference],
    sentences: Sequence[str],
    notes: Sequence[str],
) -> Report:
    """Equal, or not: by the differences and by the sentences."""
    within = all(d.within for d in (*outputs, *losses, *gradients, *weights))
    result: Result = "equal" if within and not sentences else "differs"
    return Report(name, result, outputs, losses, gradients, weights, sentences, notes)


def worst(differences: Sequence[Difference]) -> Difference | None:
    """The one that is nearest to its limit, or furthest beyond."""
    return max(differences, key=lambda each: each.of_limit, default=None)
