"""How Hugging Face's configs say the labels of a classifier."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models.interop.config_map import Fields, Theirs, shown


@dataclasses.dataclass(frozen=True)
class Classes:
    """The labels of a classifier: as many as `id2label` names, which overrules `num_labels`, or two."""

    def names(self) -> Sequence[str]:
        return ("id2label", "label2id", "num_labels", "problem_type")

    def ours(self, theirs: Theirs) -> Fields:
        names, number = theirs.get("id2label"), theirs.get("num_labels")
        if names is not None:
            if not isinstance(names, dict) or not names:
                raise InputError(
                    f'{theirs.where} has "id2label": {shown(names)}, which should be an object of labels'
                )
            number = len(names)
        number = 2 if number is None else number
        if type(number) is not int or number < 1:
            raise InputError(
                f'{theirs.where} has "num_labels": {shown(number)}, which should be a number from 1 on'
            )
        problem = theirs.get("problem_type")
        known = _PROBLEMS[number == 1]
        if problem not in (None, known):
            raise InputError(
                f'{theirs.where} has "problem_type": {shown(problem)} with {number} labels, which mjx does '
                f"not compute; only {shown(known)} is known"
            )
        return {"classes": number, "labels": _labels(theirs, names, number)}

    def theirs(self, config: Any) -> dict[str, Any]:
        number = config.classes or 0
        labels = dict(enumerate(config.labels or (f"LABEL_{label}" for label in range(number))))
        return {
            "id2label": {str(label): name for label, name in labels.items()},
            "label2id": {name: label for label, name in labels.items()},
            "num_labels": number,
            "problem_type": _PROBLEMS[number == 1],
        }


_PROBLEMS = ("single_label_classification", "regression")


def _labels(theirs: Theirs, names: Any, number: int) -> list[Any]:
    """The names in the order of their numbers; none of a number, or where they only count."""
    listed = [(names or {}).get(str(label)) for label in range(number)]
    if names is None or number == 1 or listed == [f"LABEL_{label}" for label in range(number)]:
        return []
    if any(not isinstance(name, str) for name in listed) or len(set(listed)) < number:
        raise InputError(
            f'{theirs.where} has "id2label": {shown(names)}, which should give each number from 0 to '
            f"{number - 1} a name of its own"
        )
    return listed
