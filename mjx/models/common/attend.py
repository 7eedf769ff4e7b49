"""The one place that chooses how attention is computed: by which implementation, and by whom on a mesh."""

import dataclasses
import functools
from collections.abc import Callable

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int, Key

from mjx.errors import InputError
from mjx.kernels.flash_attention import flash_attention
from mjx.kernels.flash_attention.implementations import IMPLEMENTATIONS
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
    implementation = scores.implementation
    if implementation == "auto" and mesh_shape().get("context", 1) > 1:
        implementation = "xla"  # the partitioner can split it by tokens; others take whole rows
    compute = functools.partial(
        flash_attention,
        scale=scores.scale,
        causal=scores.causal,
        window=scores.window,
        soft_cap=scores.soft_cap,
        dropout_rate=scores.dropout,
        dropout_key=dropout_key,
        implementation=implementation,
    )
    if implementation in IMPLEMENTATIONS and IMPLEMENTATIONS[implementation].per_device:
        compute = functools.partial(attend_per_device, compute, implementation)
    return compute(
        q,
        k,
        v,
        query_segment_ids=query_segment_ids,
        key_segment_ids=key_segment_ids,
        query_offset=query_offset,
        sinks=sinks,
    )


def attend_per_device(
    compute: Callable[..., Array],
    implementation: str,
    q: Float[Array, "batch sequence heads head_dim"],
    k: Float[Array, "batch keys kv_heads head_dim"],
    v: Float[Array, "batch keys kv_heads value_dim"],
    *,
    query_segment_ids: Int[Array, "batch sequence"] | None = None,
    key_segment_ids: Int[Array, "batch keys"] | None = None,
    sinks: Float[Array, " heads"] | None = None,
    query_offset: int | Int[Array, "..."] = 0,
) -> Float[Array, "batch sequence heads value_dim"]:
    """`compute(q, k, v, …)` inside `jax.shard_map`: each device computes its own rows and heads.

    XLA does not look into a kernel: by itself it would gather all rows and heads on every device.

    Raises:
        InputError: the mesh splits what a device needs whole.
    """
    options = {"query_segment_ids": query_segment_ids, "key_segment_ids": key_segment_ids, "sinks": sinks}
    if all(size == 1 for size in mesh_shape().values()):
        return compute(q, k, v, **options, query_offset=query_offset)
    of_queries = activation_spec(("batch", "sequence", "heads", "head_dim"), q.shape)
    of_keys = activation_spec(("batch", "sequence", "kv_heads", "head_dim"), k.shape)
    batch, sequence, heads, _ = (*of_queries, *[None] * (4 - len(of_queries)))
    of_kv_heads = of_keys[2] if len(of_keys) > 2 else None
    if sequence is not None:
        raise InputError(
            f"attention.implementation = {implementation!r} takes whole sequences, but the mesh splits them "
            f"(mesh.{sequence}); xla can"
        )
    if of_kv_heads != heads:
        raise InputError(
            f"attention.implementation = {implementation!r} takes as many shares of key/value heads as of "
            f"query heads, but {k.shape[2]} key/value heads are too few for mesh.tensor = "
            f"{mesh_shape().get('tensor', 1)}; xla can"
        )
    rows = PartitionSpec(batch)
    specs = {"query_segment_ids": rows, "key_segment_ids": rows, "sinks": PartitionSpec(heads)}
    arrays = {"q": (q, of_queries), "k": (k, of_keys), "v": (v, of_keys)}
    arrays |= {name: (array, specs[name]) for name, array in options.items() if array is not None}
    known = {}
    if isinstance(query_offset, int):
        known["query_offset"] = query_offset
    else:
        arrays["query_offset"] = (query_offset, rows if query_offset.ndim else PartitionSpec())

    def local(arrays: dict[str, Array]) -> Array:
        return compute(**{**dict.fromkeys(options), **known, **arrays})

    return jax.shard_map(
        local,
        in_specs=({name: spec for name, (_, spec) in arrays.items()},),
        out_specs=of_queries,
        check_vma=False,  # kernels do not say over what their results vary
    )({name: array for name, (array, _) in arrays.items()})
