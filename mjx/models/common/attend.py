"""The one place that chooses how attention is computed: by which implementation, and by whom on a mesh."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int, Key

from mjx.errors import InputError
from mjx.kernels.flash_attention import chosen_implementation, flash_attention
from mjx.kernels.flash_attention.arguments import offset
from mjx.kernels.flash_attention.implementations import IMPLEMENTATIONS
from mjx.kernels.flash_attention.options import AttentionOptions
from mjx.models.backends import Implementation
from mjx.sharding.constrain import activation_spec, mesh_shape


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """What attention makes of its scores, and by which implementation."""

    scale: float | None = None
    """Factor; default 1/√head_dim."""
    causal: bool = True
    window: int | None = None
    soft_cap: float | None = None
    dropout: float = 0.0
    implementation: Implementation = "auto"


def attend(
    q: Float[Array, "batch sequence heads head_dim"],
    k: Float[Array, "batch keys kv_heads head_dim"],
    v: Float[Array, "batch keys kv_heads value_dim"],
    scores: Scores,
    *,
    query_segment_ids: Int[Array, "batch sequence"] | None = None,
    key_segment_ids: Int[Array, "batch keys"] | None = None,
    query_offset: int | Int[Array, " batch"] = 0,
    sinks: Float[Array, " heads"] | None = None,
    dropout_key: Key[Array, ""] | None = None,
) -> Float[Array, "batch sequence heads value_dim"]:
    """`flash_attention` of these scores, on the mesh in force.

    Raises:
        InputError: the implementation that is named cannot do it, or not on this mesh.
    """
    options = AttentionOptions(
        scale=q.shape[3] ** -0.5 if scores.scale is None else scores.scale,
        causal=scores.causal,
        window=scores.window,
        query_segment_ids=query_segment_ids,
        key_segment_ids=key_segment_ids,
        query_offset=offset("query_offset", query_offset, q.shape[0]),
        soft_cap=scores.soft_cap,
        sinks=sinks,
        dropout_rate=scores.dropout,
        dropout_key=dropout_key if scores.dropout else None,
    )
    implementation = chosen_implementation(q, k, v, options, scores.implementation)

    def compute(q: Array, k: Array, v: Array, options: AttentionOptions) -> Array:
        return flash_attention(q, k, v, **options._asdict(), implementation=implementation)

    if not IMPLEMENTATIONS[implementation].per_device:
        return compute(q, k, v, options)
    refusal = refusal_per_device(q, k)
    if refusal is None:
        return attend_per_device(compute, q, k, v, options)
    if scores.implementation == "auto":  # XLA's partitioner can split this one as it likes
        return flash_attention(q, k, v, **options._asdict(), implementation="xla")
    raise InputError(f"attention.implementation = {implementation!r} {refusal}; xla can")


def refusal_per_device(
    q: Float[Array, "batch sequence heads head_dim"], k: Float[Array, "batch keys kv_heads head_dim"]
) -> str | None:
    """Why no device could compute its own rows and heads on the mesh in force; None where each can."""
    _, sequence, heads = _partition(q, "heads")
    _, keys, kv_heads = _partition(k, "kv_heads")
    split = sequence or keys
    if split is not None:
        return f"takes whole sequences, but the mesh splits them (mesh.{split})"
    if heads != kv_heads:
        return (
            f"takes as many shares of key/value heads as of query heads, but {k.shape[2]} key/value heads "
            f"are too few for mesh.tensor = {mesh_shape().get('tensor', 1)}"
        )
    return None


def attend_per_device(
    compute: Callable[[Array, Array, Array, AttentionOptions], Array],
    q: Float[Array, "batch sequence heads head_dim"],
    k: Float[Array, "batch keys kv_heads head_dim"],
    v: Float[Array, "batch keys kv_heads value_dim"],
    options: AttentionOptions,
) -> Float[Array, "batch sequence heads value_dim"]:
    """`compute` inside `jax.shard_map`: each device computes its own rows and heads.

    XLA does not look into a kernel: by itself it would gather all rows and heads on every device.
    The mesh has to allow it (`refusal_per_device`).
    """
    if all(size == 1 for size in mesh_shape().values()):
        return compute(q, k, v, options)
    batch, _, heads = _partition(q, "heads")
    whole, rows = PartitionSpec(batch, None, heads), PartitionSpec(batch)
    specs = {"query_segment_ids": rows, "key_segment_ids": rows, "query_offset": rows, "key_offset": rows}
    specs["sinks"] = PartitionSpec(heads)
    arrays = {
        name: value
        for name, value in options._asdict().items()
        if name in specs and value is not None and not isinstance(value, int)
    }

    def local(q: Array, k: Array, v: Array, arrays: dict[str, Array]) -> Array:
        return compute(q, k, v, options._replace(**arrays))

    return jax.shard_map(
        local,
        in_specs=(whole, whole, whole, {name: specs[name] for name in arrays}),
        out_specs=whole,
        check_vma=False,  # kernels do not say over what their results vary
    )(q, k, v, arrays)


def _partition(x: Float[Array, "batch sequence heads head_dim"], heads: str) -> tuple[Any, Any, Any]:
    """Over which mesh axes rows, tokens and heads are split."""
    spec = activation_spec(("batch", "sequence", heads, "head_dim"), x.shape)
    batch, sequence, of_heads, _ = (*spec, *[None] * (4 - len(spec)))
    return batch, sequence, of_heads
