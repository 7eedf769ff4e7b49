"""InfoNCE: of all columns of a batch, each row should be most like its own (van den Oord et al. 2018)."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mjx.bounds import check_scale
from mjx.sharding import relayout, shard

_NEVER = -1e30
"""A logit of what is no candidate."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """How pairs are told from what does not belong together: by the cosine, against all of the batch."""

    temperature: float = 0.05
    """Cosines are divided by it (0.05: sentence-transformers' scale of 20)."""
    symmetric: bool = False
    """Tell the second of each pair from all seconds, and the first from all firsts too: the mean of both
    losses. false: the second from all seconds alone."""

    def __post_init__(self):
        check_scale("temperature", self.temperature)


def contrastive_losses(
    rows: Float[Array, "batch latent"],
    columns: Float[Array, "batch latent"],
    counted: Float[Array, " batch"],
    scale: float | Float[Array, ""],
    *,
    symmetric: bool,
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """Of each row: minus the log of the share that its own column has in the softmax over all columns of the
    global batch, of cosines times `scale`; and whether its own is the nearest (1 or 0). In float32.

    Each device compares its own rows with all columns: these are gathered, logits never.

    Args:
        rows: what is looked from.
        columns: what is looked at; that of a row is the one with its number.
        counted: 0 of rows that only fill the batch, whose columns are no candidates.
        scale: one over the temperature.
        symmetric: the mean of this, and of the same with rows and columns exchanged.
    """
    rows, columns = unit(rows), unit(columns)
    losses, nearest = _told_apart(rows, columns, counted, scale)
    if symmetric:
        exchanged, _ = _told_apart(columns, rows, counted, scale)
        losses = (losses + exchanged) / 2
    return losses, nearest


def _told_apart(
    rows: Float[Array, "batch latent"],
    columns: Float[Array, "batch latent"],
    counted: Float[Array, " batch"],
    scale: float | Float[Array, ""],
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    own = jnp.sum(rows * columns, axis=-1) * scale
    everywhere = relayout(columns, ("batch", "latent"), (None, "latent"))
    logits = shard(jnp.einsum("rl,cl->rc", rows, everywhere), "batch", None) * scale
    logits = jnp.where(shard(counted, None) > 0, logits, _NEVER)
    nearest = jnp.argmax(logits, axis=-1) == jnp.arange(len(rows))
    return jax.nn.logsumexp(logits, axis=-1) - own, nearest.astype(jnp.float32)


def unit(vectors: Float[Array, "batch latent"]) -> Float[Array, "batch latent"]:
    """Of length one, in float32; of nothing, nothing (and no gradient without an end)."""
    vectors = vectors.astype(jnp.float32)
    squares = jnp.sum(vectors**2, axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))
