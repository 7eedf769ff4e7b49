"""What transformers calls that which enters its models and that which leaves them, in a family's terms."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

IGNORED = -100
"""The label of what counts for nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interface:
    """The inputs and outputs of a family's models by transformers' names."""

    inputs: Mapping[str, str]
    """Their names → those of a batch's arrays. The first one has to be there."""
    labels: tuple[str, ...]
    """What only the loss reads."""
    outputs: Callable[[Any, Mapping[str, Array]], dict[str, Array]]
    """`outputs(model, arrays)`: by their names, all that the model has heads for."""
    loss: Callable[[Mapping[str, Array], Mapping[str, Array]], Float[Array, ""] | None]
    """`loss(outputs, labels)`: as their model says it of labels; None: these are not all that it needs."""
    completed: Callable[[Any, dict[str, np.ndarray]], dict[str, np.ndarray]] = lambda config, arrays: arrays
    """`completed(config, arrays)`: with what their model derives of its inputs."""


def cross_entropy(logits: Float[Array, "*places classes"], labels: Int[Array, "*places"]) -> Float[Array, ""]:
    """The mean over labels that count."""
    counts = labels != IGNORED
    chosen = jnp.take_along_axis(logits, jnp.where(counts, labels, 0)[..., None], axis=-1)[..., 0]
    losses = jax.nn.logsumexp(logits, axis=-1) - chosen
    return jnp.sum(losses * counts) / jnp.sum(counts)
