"""What each token of a chunk weighs: the part of state-space duality that has one number per token and head.

It goes before the GPU kernels, and XLA computes it and its gradients.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def weigh(
    dt: Float[Array, "batch sequence heads"],
    A: Float[Array, " heads"],
    starts: Bool[Array, "batch sequence"] | None,
    size: int,
) -> dict[str, Array]:
    """`blocks.Weights` [batch, heads, sequence], `through` [batch, heads, chunks] and, of each token, how
    many documents have begun in its chunk."""
    batch, sequence, heads = dt.shape
    dt = jnp.swapaxes(dt, 1, 2).reshape(batch, heads, -1, size)
    step = dt * A[:, None, None]
    log_decay = jnp.cumsum(step, axis=-1)
    # Summed from the end for itself: the difference of two large sums would lose what is left of a small one.
    rest = jnp.pad(step[..., 1:], ((0, 0), (0, 0), (0, 0), (0, 1)))
    rest = jax.lax.cumsum(rest, axis=3, reverse=True)
    into, out_of, through = jnp.exp(log_decay), jnp.exp(rest), jnp.exp(log_decay[..., -1])
    documents = {}
    if starts is not None:
        document = jnp.cumsum(starts.reshape(batch, 1, -1, size).astype(jnp.int32), axis=-1)
        last = document[..., -1:]
        into = jnp.where(document == 0, into, 0)
        out_of = jnp.where(document == last, out_of, 0)
        through = jnp.where(last[..., 0] == 0, through, 0)
        documents = {"document": document.reshape(batch, sequence)}
    of_tokens = {"log_decay": log_decay, "dt": dt, "into": into, "deposit": out_of * dt}
    of_tokens = {name: array.reshape(batch, heads, sequence) for name, array in of_tokens.items()}
    return {**of_tokens, "through": through, **documents}
