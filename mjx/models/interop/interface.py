"""What transformers calls that which enters its models and that which leaves them, in a family's terms."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

IGNORED = -100
"""The label of what counts for nothing."""


Completed = Callable[[Any, Mapping[str, Any], dict[str, Any]], dict[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interface:
    """The inputs and outputs of a family's models by transformers' names."""

    inputs: Mapping[str, str]
    """Their names → those of a batch's arrays."""
    needed: tuple[str, ...] = ("input_ids",)
    """One of these has to be there."""
    labels: tuple[str, ...]
    """What only the loss reads."""
    outputs: Callable[[Any, Mapping[str, Array]], dict[str, Array]]
    """`outputs(model, arrays)`: by their names, all that the model has heads for."""
    loss: Callable[[Mapping[str, Array], Mapping[str, Array]], Float[Array, ""] | None]
    """`loss(outputs, labels)`: as their model says it of labels; None: these are not all that it needs."""
    by_tokens: bool = True
    """A mesh may split rows of what is given by tokens; false: it keeps rows whole."""
    completed: Completed = lambda config, settings, given: given
    """`completed(config, settings, given)`: what is given by their names, with what their model derives of
    it; `settings` are those of its config.json."""


def cross_entropy(logits: Float[Array, "*places classes"], labels: Int[Array, "*places"]) -> Float[Array, ""]:
    """The mean over labels that count."""
    counts = labels != IGNORED
    chosen = jnp.take_along_axis(logits, jnp.where(counts, labels, 0)[..., None], axis=-1)[..., 0]
    losses = jax.nn.logsumexp(logits, axis=-1) - chosen
    return jnp.sum(losses * counts) / jnp.sum(counts)
