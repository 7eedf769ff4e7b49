"""Token and position tables."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, DTypeLike, Float, Int

from mjx.models.common.parameter import parameter
from mjx.sharding import activation_spec, current_rules, mesh_shape, shard


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
        if mesh_shape().get("tensor", 1) == 1 or self.weight.get_metadata("out_sharding")[0] != "vocab":
            rows = jnp.take(self.weight[...], ids, axis=0, mode="clip").astype(dtype)
        else:
            rows = _vocabulary_parallel_lookup(self.weight[...].astype(dtype), ids)
        # The positions of all rows are one row, which cannot be split.
        batch = "batch" if ids.shape[0] > 1 else None
        return shard(rows, batch, "residual_sequence", "embed")


def _vocabulary_parallel_lookup(
    weight: Float[Array, "vocab embed"], ids: Int[Array, "batch sequence"]
) -> Float[Array, "batch residual_sequence embed"]:
    """Each tensor shard looks up the ids that it holds, zeros for the others; then one sum.

    With sequence parallelism the sum is a reduce-scatter: no device ever holds the whole sequence
    (Megatron's VocabParallelEmbedding).
    """
    stored = current_rules().spec(
        ("vocab", "embed"), weight.shape, mesh_shape(), kind="parameter", array="the token table"
    )
    split = stored[1] if len(stored) > 1 else None
    token_spec = activation_spec(("batch", "sequence"), ids.shape)
    row_spec = activation_spec(("batch", "residual_sequence", "embed"), (*ids.shape, weight.shape[1]))
    scatter = row_spec != PartitionSpec(*token_spec)

    @functools.partial(
        jax.shard_map,
        in_specs=(stored, token_spec),
        out_specs=row_spec,
    )
    def lookup(weight: Array, ids: Array) -> Array:
        if split is not None:  # gathered here, so that its gradient is scattered before copies are summed
            weight = jax.lax.all_gather(weight, split, axis=1, tiled=True)
        local = ids - jax.lax.axis_index("tensor") * weight.shape[0]
        held = (local >= 0) & (local < weight.shape[0])
        rows = jnp.take(weight, jnp.where(held, local, 0), axis=0, mode="clip") * held[..., None]
        if scatter:
            return jax.lax.psum_scatter(rows, "tensor", scatter_dimension=1, tiled=True)
        return jax.lax.psum(rows, "tensor")

    return lookup(weight, ids)
