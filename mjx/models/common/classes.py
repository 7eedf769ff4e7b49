"""What a classifier of whole rows learns and is judged by, and what its classes are called."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from mjx.errors import InputError
from mjx.metrics.scores import classification_scores, regression_scores
from mjx.models.report import Loss

ConfigT = TypeVar("ConfigT", bound=Any)


class Told(NamedTuple):
    """What a classifier says of a batch, held against its labels."""

    loss: Float[Array, ""]
    losses: dict[str, Loss]
    rows: dict[str, Array]
    """`Report.rows`: what is found of each row, its label, and whether it counts."""


def held_against(
    logits: Float[Array, "batch classes"],
    labels: Shaped[Array, " batch"],
    counted: Float[Array, " batch"],
    samples: Float[Array, ""],
) -> Told:
    """Cross-entropy of the rows' classes and their accuracy; with one logit, a number's squared error.

    Args:
        logits: In float32.
        labels: Of the rows.
        counted: 0 of rows that only fill the batch.
        samples: Rows that count, of the whole batch.
    """
    counted = counted.astype(jnp.float32)
    share, number = counted / samples, logits.shape[-1] == 1
    found = logits[:, 0] if number else jnp.argmax(logits, axis=-1)
    rows = {"found": found, "labels": labels, "counted": counted}
    if number:
        loss = jnp.sum(share * (found - labels) ** 2)
        return Told(loss, {"loss": Loss(jax.lax.stop_gradient(loss), "samples")}, rows)
    loss = -jnp.sum(share * log_chance(logits, labels))
    said = {"loss": jax.lax.stop_gradient(loss), "accuracy": jnp.sum(share * (found == labels))}
    return Told(loss, {name: Loss(total, "samples") for name, total in said.items()}, rows)


def log_chance(logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]) -> Float[Array, " batch"]:
    """log softmax of each row's label; of a label that is none (-1), some number."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.maximum(labels, 0)[:, None], axis=1)[:, 0]


def class_scores(rows: Mapping[str, Shaped[np.ndarray, " rows"]], classes: int | None) -> dict[str, float]:
    """Of a validation set's `Report.rows`: accuracy, F1 and Matthews' correlation, or of numbers (one class)
    Pearson's and Spearman's; nothing without classes."""
    if classes is None or not rows:
        return {}
    some = rows["counted"] > 0
    found, labels = rows["found"][some], rows["labels"][some]
    if classes == 1:
        return regression_scores(found, labels)
    return classification_scores(found, labels, classes)


def class_names(classes: int | None, labels: tuple[str, ...]) -> tuple[str, ...]:
    """LABEL_0 and so on where nobody has named them; empty of one that tells a number."""
    number = classes or 0
    return labels or tuple(f"LABEL_{at}" for at in range(number if number > 1 else 0))


class TellsClasses:
    """What a module with a classifier of rows has, whose config has `classes` and `labels`."""

    config: Any

    def scores(self, rows: Mapping[str, Shaped[np.ndarray, " rows"]]) -> dict[str, float]:
        """As `class_scores`."""
        return class_scores(rows, self.config.classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        """As `class_names`."""
        return class_names(self.config.classes, self.config.labels)


def check_labels(classes: int, labels: tuple[str, ...]) -> None:
    """Raise `InputError` if these are not the names of so many classes."""
    if classes < 1:
        raise InputError(f"model.classes = {classes} must be positive, or null for none")
    if labels and (len(labels) != classes or len(set(labels)) < classes or classes == 1):
        raise InputError(
            f"model.labels = {list(labels)} must be model.classes = {classes} different names"
            + (", or [] of a number" if classes == 1 else "")
        )


def labelled(config: ConfigT, labels: tuple[str, ...]) -> ConfigT:
    """A model's config, its classes named as the data names them.

    Raises:
        InputError: they are others than the model's, or not as many.
    """
    if not labels or config.classes is None or config.labels == labels:
        return config
    if config.labels:
        raise InputError(
            f"data.classes = {list(labels)} are not the model's labels, which are {list(config.labels)}: "
            "name these, in their order, or begin with a new classifier by model.labels = []"
        )
    if len(labels) != config.classes:
        raise InputError(
            f"data.classes = {list(labels)} has {len(labels)} names, and model.classes = {config.classes}; "
            f"set model.classes = {len(labels)}"
        )
    return dataclasses.replace(config, labels=labels)


def other_classifier(config: Any, given: Any) -> bool:
    """Whether the classifiers of two models tell different classes; unnamed ones may be any."""
    named = config.labels and given.labels
    return config.classes != given.classes or bool(named and config.labels != given.labels)
