"""The linear recurrence hₜ = aₜ hₜ₋₁ + bₜ of all elements at once, and its transpose."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_vjp
def linear_recurrence(
    a: Float[Array, "time *rest"], b: Float[Array, "time *rest"], initial: Float[Array, "*rest"]
) -> Float[Array, "time *rest"]:
    """All h, the first from `initial`.

    The transpose of a recurrence is one that runs backwards. Differentiating the associative scan itself
    would keep each of its levels.
    """
    return _scan(a, b.at[0].add(a[0] * initial))


def _scan(a: Array, b: Array, *, reverse: bool = False) -> Array:
    """From zero. A CPU has no use for the parallelism of the associative scan, which costs twice the time."""
    return jax.lax.platform_dependent(
        a, b, cpu=partial(sequential, reverse=reverse), default=partial(associative, reverse=reverse)
    )


def sequential(a: Array, b: Array, *, reverse: bool = False) -> Array:
    """One step after the other."""

    def advance(h: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        h = now[0] * h + now[1]
        return h, h

    return jax.lax.scan(advance, jnp.zeros_like(b[0]), (a, b), reverse=reverse)[1]


def associative(a: Array, b: Array, *, reverse: bool = False) -> Array:
    """As `sequential`: steps compose, and composing is associative (Blelloch 1990)."""

    def compose(first: tuple[Array, Array], then: tuple[Array, Array]) -> tuple[Array, Array]:
        return then[0] * first[0], then[0] * first[1] + then[1]

    return jax.lax.associative_scan(compose, (a, b), reverse=reverse)[1]


def _forward(a: Array, b: Array, initial: Array):
    h = linear_recurrence(a, b, initial)
    return h, (a, h, initial)


def _backward(residuals: tuple[Array, Array, Array], d_h: Array):
    a, h, initial = residuals
    following = jnp.concatenate([a[1:], jnp.zeros_like(a[:1])])
    d_b = _scan(following, d_h, reverse=True)
    before = jnp.concatenate([initial[None], h[:-1]])
    return d_b * before, d_b, a[0] * d_b[0]


linear_recurrence.defvjp(_forward, _backward)
