"""One vector of a row's states, in the ways that sentence-transformers has (Reimers and Gurevych 2019)."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mjx.errors import InputError
from mjx.models.family import Batch, Embeds

States = Float[Array, "batch sequence embed"]
Lengths = Int[Array, " batch"]
Pooled = Float[Array, "batch features"]


def pool(mode: str, model: Embeds, states: States, batch: Batch) -> Pooled:
    """One vector a row, in float32. What stands behind a row's tokens (`segment_ids` 0) counts for nothing; a
    row without tokens has zeros, or what does not matter."""
    if mode == "pooler":
        return model.pooled(states, batch).astype(jnp.float32)
    return POOLING[mode](states.astype(jnp.float32), jnp.sum(batch["segment_ids"] > 0, axis=1))


def check_pooling(modes: tuple[str, ...], model: Embeds) -> None:
    """Raise `InputError` if a mode is unknown, or the model has nothing for it."""
    if not modes:
        raise InputError("pooling = () makes no vector of a row; name at least one way")
    for mode in modes:
        if mode not in POOLING and mode != "pooler":
            raise InputError(f"pooling = {mode} is not known (choose from {', '.join((*POOLING, 'pooler'))})")
        if mode == "pooler" and not model.has_pooler:
            raise InputError("pooling = pooler: the model has no pooler; choose another, such as mean")


def _real(states: States, lengths: Lengths) -> Bool[Array, "batch sequence 1"]:
    return (jnp.arange(states.shape[1]) < lengths[:, None])[..., None]


def _mean(states: States, lengths: Lengths) -> Pooled:
    return _total(states, _real(states, lengths)) / jnp.maximum(lengths, 1)[:, None]


def _mean_of_root(states: States, lengths: Lengths) -> Pooled:
    total = _total(states, _real(states, lengths))
    return total / jnp.sqrt(jnp.maximum(lengths, 1).astype(jnp.float32))[:, None]


def _inner(states: States, lengths: Lengths) -> Pooled:
    """Of all but the first and the last token, which only begin and end the row: Megatron's, of RETRO."""
    place = jnp.arange(states.shape[1])
    inner = ((place > 0) & (place < lengths[:, None] - 1))[..., None]
    return _total(states, inner) / jnp.maximum(lengths - 2, 1)[:, None]


def _weighted(states: States, lengths: Lengths) -> Pooled:
    """A mean with the weights 1, 2, 3, … (Muennighoff 2022)."""
    weights = _real(states, lengths) * jnp.arange(1.0, states.shape[1] + 1)[:, None]
    return jnp.sum(states * weights, axis=1) / jnp.maximum(jnp.sum(weights, axis=1), 1)


def _first(states: States, lengths: Lengths) -> Pooled:
    return states[:, 0]


def _last(states: States, lengths: Lengths) -> Pooled:
    place = jnp.maximum(lengths - 1, 0)[:, None, None]
    return jnp.take_along_axis(states, place, axis=1)[:, 0]


def _maximum(states: States, lengths: Lengths) -> Pooled:
    return jnp.max(jnp.where(_real(states, lengths), states, -jnp.inf), axis=1)


def _total(states: States, counts: Bool[Array, "batch sequence 1"]) -> Pooled:
    # Not a product with 0: what the padding is, is not said.
    return jnp.sum(jnp.where(counts, states, 0), axis=1)


POOLING: dict[str, Callable[[States, Lengths], Pooled]] = {
    "mean": _mean,
    "cls": _first,
    "max": _maximum,
    "mean_sqrt_len_tokens": _mean_of_root,
    "weightedmean": _weighted,
    "lasttoken": _last,
    "inner": _inner,
}
"""All but the model's own pooler. Names are sentence-transformers'; inner is Megatron's."""
