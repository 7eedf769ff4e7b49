"""Attention kernels that know one device, on a mesh of many: each computes its own rows and heads."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float, Int

from mjx.errors import InputError
from mjx.sharding.constrain import activation_spec, mesh_shape


def attend_per_device(
    attend: Callable[..., Array],
    implementation: str,
    q: Float[Array, "batch sequence heads head_dim"],
    k: Float[Array, "batch keys kv_heads head_dim"],
    v: Float[Array, "batch keys kv_heads value_dim"],
    *,
    segment_ids: Int[Array, "batch sequence"] | None,
    sinks: Float[Array, " heads"] | None,
    query_offset: int | Int[Array, "..."],
) -> Float[Array, "batch sequence heads value_dim"]:
    """`attend(q, k, v, segment_ids=…, sinks=…, query_offset=…)` inside `jax.shard_map`.

    XLA does not look into a kernel: by itself it would gather all rows and heads on every device.

    Raises:
        InputError: the mesh splits what a device needs whole.
    """
    if all(size == 1 for size in mesh_shape().values()):
        return attend(q, k, v, segment_ids=segment_ids, sinks=sinks, query_offset=query_offset)
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
    arrays = {"q": (q, of_queries), "k": (k, of_keys), "v": (v, of_keys)}
    if segment_ids is not None:
        arrays["segment_ids"] = (segment_ids, activation_spec(("batch", "sequence"), segment_ids.shape))
    if sinks is not None:
        arrays["sinks"] = (sinks, jax.sharding.PartitionSpec(heads))
    known = {}
    if isinstance(query_offset, int):
        known["query_offset"] = query_offset
    else:
        of_rows = jax.sharding.PartitionSpec(batch) if query_offset.ndim else jax.sharding.PartitionSpec()
        arrays["query_offset"] = (query_offset, of_rows)

    def local(arrays: dict[str, Array]) -> Array:
        return attend(**{"segment_ids": None, "sinks": None, **known, **arrays})

    return jax.shard_map(
        local,
        in_specs=({name: spec for name, (_, spec) in arrays.items()},),
        out_specs=of_queries,
        check_vma=False,  # kernels do not say over what their results vary
    )({name: array for name, (array, _) in arrays.items()})
