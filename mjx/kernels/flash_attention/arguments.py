"""What attention cannot be asked, refused in a sentence with the shapes."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mjx.bounds import LEAST, MOST
from mjx.errors import InputError
from mjx.kernels.flash_attention.implementations import IMPLEMENTATIONS
from mjx.kernels.flash_attention.relative_bias import RelativeBuckets


def check_arrays(q: Array, k: Array, v: Array, sinks: Array | None) -> None:
    """Of ranks, shapes and dtypes."""
    shapes = f"q {_shown(q)}, k {_shown(k)}, v {_shown(v)}"
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.ndim != 4:
            raise InputError(
                f"attention takes q, k and v of shape [batch, sequence, heads, features], "
                f"but {name} has {x.ndim} axes ({shapes})"
            )
    if not (q.shape[0] == k.shape[0] == v.shape[0]):
        raise InputError(f"attention: q, k and v must have the same batch ({shapes})")
    if k.shape[1] != v.shape[1]:
        raise InputError(f"attention: k and v must have the same number of keys ({shapes})")
    if k.shape[2] != v.shape[2]:
        raise InputError(f"attention: k and v must have the same number of heads ({shapes})")
    if k.shape[2] == 0 or q.shape[2] % k.shape[2] or q.shape[2] == 0:
        raise InputError(
            f"attention: q's {q.shape[2]} heads must be a multiple of k's {k.shape[2]} ({shapes})"
        )
    if q.shape[3] != k.shape[3]:
        raise InputError(f"attention: q and k must have the same head_dim ({shapes})")
    for what, size in (("queries", q.shape[1]), ("keys", k.shape[1]), ("head_dim", q.shape[3])):
        if size == 0:
            raise InputError(f"attention: there are no {what} ({shapes})")
    if not (q.dtype == k.dtype == v.dtype):
        raise InputError(f"attention: q, k and v must have the same dtype ({shapes})")
    known = list(dict.fromkeys(dtype for row in IMPLEMENTATIONS.values() for dtype in row.dtypes))
    if q.dtype.name not in known:
        raise InputError(f"attention takes {', '.join(known)}, not {q.dtype} ({shapes})")
    if sinks is not None and (sinks.shape != (q.shape[2],) or not jnp.issubdtype(sinks.dtype, jnp.floating)):
        raise InputError(
            f"attention: sinks must be floats of shape [heads] = [{q.shape[2]}], not {_shown(sinks)} "
            f"({shapes})"
        )


def check_numbers(**options: Any) -> None:
    """Of scale, window, soft_cap and dropout_rate."""
    for name in ("scale", "soft_cap"):
        value = options[name]
        if value is not None and not (isinstance(value, (int, float, np.number)) and LEAST <= value <= MOST):
            raise InputError(
                f"attention: {name} = {_shown(value)} must be a positive number ({LEAST:g} to {MOST:g}), "
                "or None"
            )
    window = options["window"]
    if window is not None and (isinstance(window, bool) or not isinstance(window, int) or window < 1):
        raise InputError(f"attention: window = {_shown(window)} must be a positive int, or None")
    rate = options["dropout_rate"]
    if not (isinstance(rate, (int, float)) and 0 <= rate < 1):
        raise InputError(f"attention: dropout_rate = {_shown(rate)} must be at least 0 and below 1")


def segments(
    q: Array,
    k: Array,
    both: Int[Array, "batch sequence"] | None,
    of_queries: Int[Array, "batch query"] | None,
    of_keys: Int[Array, "batch key"] | None,
) -> tuple[Int[Array, "batch query"] | None, Int[Array, "batch key"] | None]:
    """Segment ids of queries and of keys, however they were given."""
    if both is not None:
        if of_queries is not None or of_keys is not None:
            raise InputError(
                "attention takes segment_ids for queries and keys alike, or query_segment_ids and "
                "key_segment_ids, but not both"
            )
        if q.shape[1] != k.shape[1]:
            raise InputError(
                f"attention: segment_ids are for as many queries as keys, but q is {_shown(q)} and k "
                f"{_shown(k)}; give query_segment_ids and key_segment_ids"
            )
        of_queries = of_keys = both
    if of_queries is None and of_keys is None:
        return None, None
    if of_queries is None or of_keys is None:
        given = "query_segment_ids" if of_keys is None else "key_segment_ids"
        raise InputError(f"attention: {given} came alone; it takes query_segment_ids and key_segment_ids")
    for name, ids, x in (("query", of_queries, q), ("key", of_keys, k)):
        if ids.shape != x.shape[:2] or not jnp.issubdtype(ids.dtype, jnp.integer):
            wanted = "segment_ids" if both is not None else f"{name}_segment_ids"
            raise InputError(
                f"attention: {wanted} must be integers of shape [batch, {name}] = {list(x.shape[:2])}, "
                f"not {_shown(ids)}"
            )
    return of_queries, of_keys


def relative(
    q: Array, table: Array | None, buckets: RelativeBuckets | None, *, causal: bool
) -> RelativeBuckets | None:
    """Which distances share a row of the table; None where there is no table."""
    if table is None:
        return None
    heads = q.shape[2]
    if table.ndim != 2 or table.shape[1] != heads or not jnp.issubdtype(table.dtype, jnp.floating):
        raise InputError(
            f"attention: relative_bias must be floats of shape [buckets, heads] = [buckets, {heads}], not "
            f"{_shown(table)}"
        )
    buckets = RelativeBuckets(two_sided=not causal) if buckets is None else buckets
    why = buckets.refusal(table.shape[0])
    if why is not None:
        raise InputError(f"attention: relative_bias {_shown(table)} has {why}")
    return buckets


def offset(name: str, value: Any, batch: int) -> int | Int[Array, " batch"]:
    """An int if it is known now, else one number for each row."""
    if not isinstance(value, (jax.Array, np.ndarray)):
        try:
            return operator.index(value)
        except TypeError:
            raise InputError(
                f"attention: {name} = {_shown(value)} must be an int, or one for each row"
            ) from None
    if not jnp.issubdtype(value.dtype, jnp.integer) or value.shape not in ((), (1,), (batch,)):
        raise InputError(
            f"attention: {name} must be an int, or integers of shape [batch] = [{batch}], not {_shown(value)}"
        )
    return jnp.broadcast_to(jnp.asarray(value, jnp.int32), (batch,))


def _shown(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}{list(value.shape)}"
    return repr(value)
