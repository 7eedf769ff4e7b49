"""The one place that chooses how attention is computed: by which implementation, and by whom on a mesh.

Where mesh axes split the tokens, every device computes its own queries and gathers keys and values, which
grouped queries make small (Dubey et al. 2024, section 3.3.2).
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int, Key

from mjx.errors import InputError
from mjx.kernels.flash_attention import chosen_implementation, flash_attention
from mjx.kernels.flash_attention.arguments import offset
from mjx.kernels.flash_attention.implementations import IMPLEMENTATIONS
from mjx.kernels.flash_attention.options import AttentionOptions
from mjx.kernels.flash_attention.relative_bias import RelativeBuckets
from mjx.models.backends import Implementation
from mjx.models.common.pattern import exchanging
from mjx.models.common.split import Split
from mjx.sharding import activation_spec, axes_per_dimension, current_rules, mesh_shape

Compute = Callable[[Array, Array, Array, AttentionOptions], Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """What attention makes of its scores, and by which implementation."""

    scale: float | None = None
    """Factor; default 1/√head_dim."""
    causal: bool = True
    window: int | None = None
    soft_cap: float | None = None
    relative_buckets: RelativeBuckets | None = None
    """Which distances share a row of the table of biases; None: there is none."""
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
    relative_bias: Float[Array, "buckets heads"] | None = None,
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
        relative_bias=relative_bias,
        relative_buckets=scores.relative_buckets,
        dropout_rate=scores.dropout,
        dropout_key=dropout_key if scores.dropout else None,
    )
    layout = Layout.of(q, k)
    # Which keys are dropped would depend on the device: with dropout XLA's partitioner splits the scores.
    gathers = layout.splits_tokens and options.dropout_key is None
    apart = gathers and layout.refusal is None
    if layout.splits_tokens and not apart and current_rules().zigzag:
        why = layout.refusal or f"draws attention.dropout = {scores.dropout:g} for whole rows"
        raise InputError(
            "sharding.zigzag = true needs attention of which each device can compute a part by itself; this "
            f"one {why}: choose sharding.zigzag = false"
        )
    asked = options
    if gathers and layout.places_queries(options):  # known when it runs
        asked = options._replace(query_offset=jnp.zeros(q.shape[0], jnp.int32))
    implementation = chosen_implementation(q, k, v, asked, scores.implementation)

    def compute(q: Array, k: Array, v: Array, options: AttentionOptions) -> Array:
        return flash_attention(q, k, v, **options._asdict(), implementation=implementation)

    per_device = IMPLEMENTATIONS[implementation].per_device
    # By itself XLA would sum the gradient of a bias over devices for every pair of chunks.
    summed = relative_bias is not None and options.dropout_key is None
    if not (gathers or per_device or summed):
        return compute(q, k, v, options)
    if layout.refusal is None:
        return attend_per_device(compute, q, k, v, options)
    if not per_device or scores.implementation == "auto":  # XLA's partitioner can split this one as it likes
        return flash_attention(q, k, v, **options._asdict(), implementation="xla")
    raise InputError(f"attention.implementation = {implementation!r} {layout.refusal}; xla can")


@dataclasses.dataclass(frozen=True)
class Layout:
    """How queries and keys lie on the mesh in force: the mesh axes that split each."""

    batch: tuple[str, ...]
    queries: tuple[str, ...]
    keys: tuple[str, ...]
    heads: tuple[str, ...]
    kv_heads: tuple[str, ...]

    @classmethod
    def of(
        cls, q: Float[Array, "batch sequence heads head_dim"], k: Float[Array, "batch keys kv_heads head_dim"]
    ) -> "Layout":
        def axes(x: Array, heads: str) -> tuple[tuple[str, ...], ...]:
            spec = activation_spec(("batch", "sequence", heads, "head_dim"), x.shape)
            return axes_per_dimension(spec, x.ndim)[:3]

        batch, queries, heads = axes(q, "heads")
        _, keys, kv_heads = axes(k, "kv_heads")
        return cls(batch, queries, keys, heads, kv_heads)

    @property
    def splits_tokens(self) -> bool:
        """Whether a device has a part of a row only."""
        return bool(self.queries or self.keys)

    @property
    def refusal(self) -> str | None:
        """Why no device could compute its own rows and heads; None where each can."""
        if self.kv_heads in ((), self.heads):
            return None
        return (
            "takes a device's key/value heads with the query heads that look at them, but the rules split "
            f"heads over {' × '.join(self.heads) or 'nothing'} and kv_heads over {' × '.join(self.kv_heads)}"
        )

    def places_queries(self, options: AttentionOptions) -> bool:
        """Whether it matters where in the row a device's queries are."""
        placed = options.causal or options.window is not None or options.relative_bias is not None
        return bool(self.queries) and placed

    def spec(self, *dimensions: tuple[str, ...]) -> PartitionSpec:
        """Of an array with these axes."""
        return PartitionSpec(*(axes or None for axes in dimensions))


def attend_per_device(
    compute: Compute,
    q: Float[Array, "batch sequence heads head_dim"],
    k: Float[Array, "batch keys kv_heads head_dim"],
    v: Float[Array, "batch keys kv_heads value_dim"],
    options: AttentionOptions,
) -> Float[Array, "batch sequence heads value_dim"]:
    """`compute` inside `jax.shard_map`: each device computes its own rows, heads and queries.

    XLA does not look into a kernel: by itself it would gather all rows and heads on every device.
    The mesh has to allow it (`Layout.refusal`).
    """
    if all(size == 1 for size in mesh_shape().values()):
        return compute(q, k, v, options)
    layout = Layout.of(q, k)
    of_keys = layout.spec(layout.batch, layout.keys, layout.kv_heads)
    of_queries = layout.spec(layout.batch, layout.queries, layout.heads)
    specs = {
        "query_segment_ids": layout.spec(layout.batch, layout.queries),
        "key_segment_ids": layout.spec(layout.batch, layout.keys),
        "query_offset": layout.spec(layout.batch),
        "key_offset": layout.spec(layout.batch),
        "sinks": layout.spec(layout.heads),
        "relative_bias": layout.spec((), layout.heads),
    }
    arrays = {
        name: value
        for name, value in options._asdict().items()
        if name in specs and value is not None and not isinstance(value, int)
    }
    group = q.shape[2] // k.shape[2]

    def local(q: Array, k: Array, v: Array, arrays: dict[str, Array]) -> Array:
        own = options._replace(**arrays)
        if layout.heads and not layout.kv_heads:
            k, v = (_of_own_queries(x, layout.heads, q.shape[2], group) for x in (k, v))
        if split := Split.over(layout.keys):
            k, v, own = _all_keys(split, k, v, own)
        split = Split.over(layout.queries)
        if split is None or not layout.places_queries(own):
            return compute(q, k, v, own)
        return _at_their_places(compute, split, q, k, v, own)

    return jax.shard_map(
        local,
        in_specs=(of_queries, of_keys, of_keys, {name: specs[name] for name in arrays}),
        out_specs=of_queries,
        check_vma=False,  # kernels do not say over what their results vary
    )(q, k, v, arrays)


def _of_own_queries(
    x: Float[Array, "batch keys kv_heads features"], axes: tuple[str, ...], heads: int, group: int
) -> Float[Array, "batch keys own_kv_heads features"]:
    """The key/value heads that a device's `heads` query heads look at, of those that every device has."""
    first = jax.lax.axis_index(axes) * heads // group
    return jax.lax.dynamic_slice_in_dim(x, first, math.ceil(heads / group), axis=2)


@exchanging("keys")
def _all_keys(
    split: Split, k: Array, v: Array, options: AttentionOptions
) -> tuple[Array, Array, AttentionOptions]:
    """Keys and values of whole rows, with their segment ids."""
    ids = options.key_segment_ids
    ids = None if ids is None else split.whole(ids)
    return split.whole(k), split.whole(v), options._replace(key_segment_ids=ids)


def _at_their_places(
    compute: Compute, split: Split, q: Array, k: Array, v: Array, options: AttentionOptions
) -> Array:
    """`compute` of each part of the queries that a device has, at the place where the row has it."""
    size = q.shape[1] // split.parts
    ends = [split.devices * size * (part + 1) for part in range(split.parts)]
    rows = jnp.zeros(q.shape[0], jnp.int32)

    def of_part(part: int, end: int) -> Array:
        own = slice(part * size, (part + 1) * size)
        # No device has queries of this part behind `end`: nobody's looks at keys there.
        seen = slice(None, end if options.causal and options.distance == 0 else None)
        of_queries, of_keys = options.query_segment_ids, options.key_segment_ids
        placed = options._replace(
            query_offset=options.query_offset + rows + split.places[part] * size,
            query_segment_ids=None if of_queries is None else of_queries[:, own],
            key_segment_ids=None if of_keys is None else of_keys[:, seen],
        )
        return compute(q[:, own], k[:, seen], v[:, seen], placed)

    return jnp.concatenate([of_part(part, end) for part, end in enumerate(ends)], axis=1)
