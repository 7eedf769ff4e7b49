"""What came of one case."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from oracles.difference import Difference

Result = Literal["equal", "differs", "not supported", "broke"]


@dataclasses.dataclass(frozen=True)
class Compared:
    """Everything of a case that was held against what mjx computes."""

    outputs: Sequence[Difference] = ()
    losses: Sequence[Difference] = ()
    gradients: Sequence[Difference] = ()
    weights: Sequence[Difference] = ()
    """There and back through the name map, which has to be exact."""
    sentences: Sequence[str] = ()
    """What differs besides the numbers."""
    notes: Sequence[str] = ()
    """What was taken for granted, or left out."""

    def differences(self) -> list[Difference]:
        return [*self.outputs, *self.losses, *self.gradients, *self.weights]

    def with_notes(self, notes: Sequence[str]) -> "Compared":
        return dataclasses.replace(self, notes=[*self.notes, *notes])

    def failures(self) -> list[str]:
        """Sentences, the worst difference first."""
        beyond = sorted((each for each in self.differences() if not each.within), key=lambda d: -d.of_limit)
        return [*self.sentences, *(each.sentence for each in beyond)]


@dataclasses.dataclass(frozen=True)
class Report:
    """One case."""

    name: str
    result: Result
    compared: Compared = Compared()
    reason: str | None = None
    """Why it is not supported, or broke."""

    def sentences(self) -> list[str]:
        return self.compared.failures() if self.reason is None else [self.reason]


def report_of(name: str, compared: Compared) -> Report:
    """Equal, or not."""
    return Report(name, "differs" if compared.failures() else "equal", compared)


def worst(differences: Sequence[Difference]) -> Difference | None:
    """The one that is nearest to its limit, or furthest beyond."""
    return max(differences, key=lambda each: each.of_limit, default=None)
