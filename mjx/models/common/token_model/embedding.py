"""Token and position tables."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, DTypeLike, Float, Int

from mjx.models.common.parameter import axes_of, parameter
from mjx.models.common.split import in_order
from mjx.sharding import activation_spec, axes_per_dimension, mesh_shape, parameter_spec, shard


def padded_vocabulary(vocab_size: int, divisor: int) -> int:
    """The table's rows: the vocabulary rounded up, so that it splits over `tensor` and suits the GEMM."""
    return -(-vocab_size // divisor) * divisor


class Embedding(nnx.Module):
    """Rows of a table, for tokens (`axis="vocab"`) or learned positions (`axis="positions"`)."""

    def __init__(self, rows: int, embed: int, *, axis: str, std: float, rngs: nnx.Rngs):
        weight = std * jax.random.normal(rngs.params(), (rows, embed), jnp.float32)
        self.weight = parameter(weight, axis, "embed")

    def __call__(
        self, ids: Int[Array, "batch sequence"], dtype: DTypeLike
    ) -> Float[Array, "batch residual_sequence embed"]:
        weight = self.weight[...]
        if axes_of(self.weight)[0] == "vocab" and any(size > 1 for size in mesh_shape().values()):
            rows = _lookup_over_the_mesh(weight.astype(dtype), ids)
        else:
            rows = jnp.take(weight, ids, axis=0, mode="clip").astype(dtype)
        # The positions of all rows are one row, which cannot be split.
        batch = "batch" if ids.shape[0] > 1 else None
        return shard(rows, batch, "residual_sequence", "embed")


def _lookup_over_the_mesh(
    weight: Float[Array, "vocab embed"], ids: Int[Array, "batch sequence"]
) -> Float[Array, "batch residual_sequence embed"]:
    """Each tensor shard looks up the ids that it holds, zeros for the others; then one sum.

    With sequence parallelism the sum is a reduce-scatter: no device ever holds the whole sequence
    (Megatron's VocabParallelEmbedding). Where the features are split too (FSDP), either the table is gathered
    or, if that is less, each device looks its features up for the tokens of all, and they exchange them.
    """
    token_spec = activation_spec(("batch", "sequence"), ids.shape)
    row_spec = activation_spec(("batch", "residual_sequence", "embed"), (*ids.shape, weight.shape[1]))
    stored = parameter_spec(("vocab", "embed"), weight.shape)
    _, split = axes_per_dimension(stored, 2)
    copies = tuple(a for axes in axes_per_dimension(token_spec, 2) for a in axes if a not in split)
    shares = mesh_shape().get("tensor", 1)
    tensor = shares > 1
    scatter = row_spec != PartitionSpec(*token_spec)

    @functools.partial(jax.shard_map, in_specs=(stored, token_spec), out_specs=row_spec)
    def lookup(weight: Array, ids: Array) -> Array:
        # Before anything is gathered: gradients are scattered first, and those of copies summed then.
        weight = jax.lax.pcast(weight, copies, to="varying") if copies else weight
        kept_tokens = ids.size // shares if scatter else ids.size
        exchange = kept_tokens < weight.shape[0]
        if split and exchange:
            ids = jax.lax.all_gather(ids, split, tiled=True)
        elif split:
            weight = jax.lax.all_gather(weight, split, axis=1, tiled=True)
        if tensor:
            local = ids - jax.lax.axis_index("tensor") * weight.shape[0]
            held = (local >= 0) & (local < weight.shape[0])
            rows = jnp.take(weight, jnp.where(held, local, 0), axis=0, mode="clip") * held[..., None]
        else:
            rows = jnp.take(weight, ids, axis=0, mode="clip")
        if tensor and scatter:
            rows = jax.lax.psum_scatter(rows, "tensor", scatter_dimension=1, tiled=True)
        elif tensor:
            rows = jax.lax.psum(rows, "tensor")
        if split and exchange:
            rows = jax.lax.all_to_all(rows, split, split_axis=0, concat_axis=2, tiled=True)
        return rows

    return lookup(weight, ids)


def placed(
    x: Float[Array, "batch residual_sequence embed"],
    embeddings: Float[Array, "batch made embed"],
    at: Int[Array, "batch made"],
    order: Int[np.ndarray, " sequence"] | None = None,
) -> Float[Array, "batch residual_sequence embed"]:
    """`x`, whose tokens stand in `order`, with embeddings in the places of some.

    A gather over the few embeddings, not a scatter into the stream: the stream's tokens may be split.
    """
    made = jnp.broadcast_to(jnp.arange(at.shape[1]), at.shape)
    source = jnp.full(x.shape[:2], -1, jnp.int32)
    source = jax.vmap(lambda row, places, ids: row.at[places].set(ids, mode="drop"))(source, at, made)
    source = shard(in_order(order, source), "batch", "residual_sequence")
    rows = jnp.take_along_axis(embeddings, jnp.maximum(source, 0)[..., None], axis=1)
    return jnp.where(source[..., None] >= 0, shard(rows, "batch", "residual_sequence", "embed"), x)
