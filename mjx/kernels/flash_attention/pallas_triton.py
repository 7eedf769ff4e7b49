"""Flash attention as Pallas-Triton kernels, for GPUs from Ampere on.

JAX has deprecated Pallas' Triton backend: all that knows of it is in this file, and the mathematics is in
`blocks`. Three kernels: the forward pass, the gradients of keys and values (a program for each block of keys,
which goes over the query heads of its group, so that nothing is added to by two), and that of queries.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from mjx.kernels.capability import current_device
from mjx.kernels.flash_attention import blocks
from mjx.kernels.flash_attention.block_sizes import BlockSizes, KernelConfig, configs
from mjx.kernels.flash_attention.blocks import Options, Places, Running
from mjx.kernels.flash_attention.options import AttentionOptions
from mjx.kernels.matrix_product import product
from mjx.kernels.padding import pad_to, power_of_two, round_up


class _Inputs:
    """The refs that all three kernels begin with, by name."""

    def __init__(self, refs: dict[str, Any], options: Options, keys: int, queries: int):
        self.refs, self.options, self.num_keys, self.num_queries = refs, options, keys, queries

    def rows(self, block: Any, size: int) -> Places:
        return self._places("query", block, size, self.num_queries)

    def columns(self, block: Any, size: int) -> Places:
        places = self._places("key", block, size, self.num_keys)
        if not self.guarded:
            return places
        first = self.refs["query_offset"][0]
        readable = places.inside
        if self.options.causal:
            readable &= places.positions < first + self.num_queries
        if self.options.window is not None:
            readable &= places.positions > first - self.options.window
        if places.segments is not None:
            readable &= places.segments > 0
        return places._replace(readable=readable)

    @property
    def guarded(self) -> bool:
        """Whether some keys may hold anything."""
        return "key_segments" in self.refs or self.options.guarded

    def _places(self, side: str, block: Any, size: int, length: int) -> Places:
        from jax.experimental.pallas import triton

        index = block * size + jnp.arange(size)
        segments = self.refs.get(f"{side}_segments")
        if segments is not None:
            segments = triton.load(segments.at[pl.ds(block * size, size)])
        return Places(self.refs[f"{side}_offset"][0] + index, index < length, segments)

    def load(self, name: str, block: Any, size: int, *head: Any, places: Places | None = None) -> Array:
        """A block of tokens; `head` where the ref has several. Zeros for those of `places` that are not to be
        read: 0 × NaN would be NaN."""
        from jax.experimental.pallas import triton

        place = tuple(pl.ds(number, 1) for number in head)  # interpret mode knows no plain integers
        ref = self.refs[name].at[(pl.ds(block * size, size), *place, slice(None))]
        if places is None or places.readable is None:
            return triton.load(ref).reshape(size, -1)
        # Masked in the load, so that tiles still go to shared memory without passing through registers.
        keep = jnp.broadcast_to(places.readable.reshape(size, *(1 for _ in head), 1), ref.shape)
        return triton.load(ref, mask=keep, other=0.0).reshape(size, -1)

    def load_row(self, name: str, block: Any, size: int, *head: Any) -> Array:
        """One number of each token of a block."""
        from jax.experimental.pallas import triton

        place = tuple(pl.ds(number, 1) for number in head)
        return triton.load(self.refs[name].at[(*place, pl.ds(block * size, size))]).reshape(size)

    def key_blocks(self, block: Any, sizes: BlockSizes) -> tuple[Any, Any]:
        """First and last + 1 of the key blocks that a block of queries can see anything of."""
        shift = self.refs["query_offset"][0] - self.refs["key_offset"][0]
        back, ahead = self._reach()
        return _span(block, sizes.query, shift, back, ahead, sizes.key, self.num_keys)

    def query_blocks(self, block: Any, sizes: BlockSizes) -> tuple[Any, Any]:
        """First and last + 1 of the query blocks that can see anything of a block of keys."""
        shift = self.refs["key_offset"][0] - self.refs["query_offset"][0]
        back, ahead = self._reach()
        return _span(block, sizes.key, shift, ahead, back, sizes.query, self.num_queries)

    def _reach(self) -> tuple[int | None, int | None]:
        """How many positions a query sees before its own, and behind it; None: all."""
        back = None if self.options.window is None else self.options.window - 1
        return back, 0 if self.options.causal else back


def _span(
    block: Any, size: int, shift: Any, back: int | None, ahead: int | None, other: int, length: int
) -> tuple[Any, Any]:
    """The blocks of `other` tokens that lie within reach of a block of `size` tokens."""
    count = pl.cdiv(length, other)
    first = block * size + shift
    low = 0 if back is None else (first - back) // other
    high = count if ahead is None else (first + size - 1 + ahead) // other + 1
    return jnp.clip(low, 0, count), jnp.clip(high, 0, count)


def _forward_kernel(names: tuple[str, ...], options: Options, lengths, sizes: BlockSizes, *refs):
    inputs = _Inputs(dict(zip(names, refs, strict=False)), options, *lengths)
    out_ref, log_sum_ref = refs[len(names) :]
    block = pl.program_id(0)
    q, rows = inputs.load("q", 0, sizes.query), inputs.rows(block, sizes.query)
    maximum, total = jnp.full((sizes.query,), blocks.MASKED), jnp.zeros((sizes.query,))
    if "sinks" in inputs.refs:
        maximum = jnp.full((sizes.query,), inputs.refs["sinks"][0] * blocks.LOG2_E)
        total = jnp.ones((sizes.query,))
    start = Running(maximum, total, jnp.zeros((sizes.query, out_ref.shape[-1])))

    def step(index: Any, running: Running) -> Running:
        columns = inputs.columns(index, sizes.key)
        k, v = (inputs.load(name, index, sizes.key, places=columns) for name in ("k", "v"))
        mask = blocks.visible(options, rows, columns)
        return blocks.extend(running, blocks.scores(options, q, k, mask)[0], v)

    running = jax.lax.fori_loop(*inputs.key_blocks(block, sizes), step, start)
    out, log_sum = blocks.finish(running)
    out_ref[...] = out.astype(out_ref.dtype)
    log_sum_ref[...] = log_sum


def _keys_kernel(names: tuple[str, ...], options: Options, lengths, sizes: BlockSizes, *refs, group, makes):
    """Gradients of keys, of values, or of both: what the outputs are (`makes`)."""
    inputs = _Inputs(dict(zip(names, refs, strict=False)), options, *lengths)
    outputs = dict(zip(makes, refs[len(names) :], strict=True))
    block = pl.program_id(0)
    columns = inputs.columns(block, sizes.key)
    k = inputs.load("k", 0, sizes.key, places=columns)
    v = inputs.load("v", 0, sizes.key, places=columns) if "d_k" in makes else None
    low, high = inputs.query_blocks(block, sizes)
    count = jnp.maximum(high - low, 1)

    def step(turn: Any, gradients: dict[str, Array]) -> dict[str, Array]:
        """One block of queries of one head; the heads of the group one after the other."""
        head, index = turn // count, low + turn % count
        rows = inputs.rows(index, sizes.query)
        q, d_out = (inputs.load(name, index, sizes.query, head) for name in ("q", "d_out"))
        mask = blocks.visible(options, rows, columns, keys_as_rows=True)
        s, slope = blocks.scores(options, k, q, mask)
        p = blocks.probabilities(s, inputs.load_row("log_sum", index, sizes.query, head)[None, :])
        added = {}
        if "d_v" in makes:
            added["d_v"] = gradients["d_v"] + product(p.astype(d_out.dtype), d_out)
        if v is not None:
            delta = inputs.load_row("delta", index, sizes.query, head)[None, :]
            d_p = product(v, d_out, transpose_b=True)
            d_s = blocks.score_gradient(options, p, slope, d_p, delta)
            added["d_k"] = gradients["d_k"] + product(d_s.astype(q.dtype), q)
        return added

    start = {name: jnp.zeros(ref.shape, jnp.float32) for name, ref in outputs.items()}
    gradients = jax.lax.fori_loop(0, group * jnp.maximum(high - low, 0), step, start)
    for name, ref in outputs.items():
        ref[...] = gradients[name].astype(ref.dtype)


def _queries_kernel(names: tuple[str, ...], options: Options, lengths, sizes: BlockSizes, *refs):
    inputs = _Inputs(dict(zip(names, refs, strict=False)), options, *lengths)
    (d_q_ref,) = refs[len(names) :]
    block = pl.program_id(0)
    q, d_out = inputs.load("q", 0, sizes.query), inputs.load("d_out", 0, sizes.query)
    log_sum, delta = (inputs.load_row(name, 0, sizes.query) for name in ("log_sum", "delta"))
    rows = inputs.rows(block, sizes.query)

    def step(index: Any, d_q: Array) -> Array:
        columns = inputs.columns(index, sizes.key)
        k, v = (inputs.load(name, index, sizes.key, places=columns) for name in ("k", "v"))
        mask = blocks.visible(options, rows, columns)
        s, slope = blocks.scores(options, q, k, mask)
        p = blocks.probabilities(s, log_sum[:, None])
        d_p = product(d_out, v, transpose_b=True)
        d_s = blocks.score_gradient(options, p, slope, d_p, delta[:, None])
        return d_q + product(d_s.astype(k.dtype), k)

    d_q = jax.lax.fori_loop(*inputs.key_blocks(block, sizes), step, jnp.zeros(q.shape, jnp.float32))
    d_q_ref[...] = d_q.astype(d_q_ref.dtype)


class _Call:
    """Shapes and layouts of one call, and its three kernels."""

    def __init__(self, options: Options, config: KernelConfig, interpret: bool, arrays: dict[str, Array]):
        self.options, self.config, self.interpret = options, config, interpret
        q, k, v = (arrays[name] for name in ("q", "k", "v"))
        self.batch, self.num_queries, self.heads, self.head_dim = q.shape
        self.num_keys, self.kv_heads, self.value_dim = k.shape[1], k.shape[2], v.shape[3]
        self.group = self.heads // self.kv_heads
        sizes = (config.forward, config.keys, config.queries, config.values or config.keys)
        self.padded_queries = round_up(self.num_queries, math.lcm(*(size.query for size in sizes)))
        self.padded_keys = round_up(self.num_keys, math.lcm(*(size.key for size in sizes)))
        head, value = power_of_two(self.head_dim), power_of_two(self.value_dim)
        self.widths = {"q": head, "k": head, "v": value, "out": value, "d_out": value}
        self.widths |= {"d_q": head, "d_k": head, "d_v": value}

    def tokens(self, name: str) -> int:
        """Of an array, padded."""
        keys = name in ("k", "v", "d_k", "d_v", "key_segments")
        return self.padded_keys if keys else self.padded_queries

    def pad(self, name: str, array: Array) -> Array:
        """With whole blocks of tokens, and features to a power of two, which Triton asks for."""
        if name in self.widths:
            return pad_to(array, {1: self.tokens(name), 3: self.widths[name]})
        if name in ("query_offset", "key_offset", "sinks"):
            return array
        return pad_to(array, {array.ndim - 1: self.tokens(name)})

    def spec(self, name: str, sizes: BlockSizes, *, of_keys: bool) -> pl.BlockSpec:
        """What a program (block, head, row) has of an input: its own block, or all that it goes over."""
        group, width, tokens = self.group, self.widths.get(name), self.tokens(name)
        if name in ("query_offset", "key_offset"):
            return pl.BlockSpec((1,), lambda i, h, b: (b,))
        if name == "sinks":
            return pl.BlockSpec((1,), lambda i, h, b: (h,))
        if name in ("query_segments", "key_segments"):
            return pl.BlockSpec((None, tokens), lambda i, h, b: (b, 0))
        if name in ("k", "v") and not of_keys:
            return pl.BlockSpec((None, tokens, None, width), lambda i, h, b: (b, 0, h // group, 0))
        if name in ("q", "d_out") and of_keys:
            return pl.BlockSpec((None, tokens, group, width), lambda i, h, b: (b, 0, h, 0))
        if name in ("log_sum", "delta") and of_keys:
            return pl.BlockSpec((None, group, tokens), lambda i, h, b: (b, h, 0))
        return self.own_block(name, sizes.key if of_keys else sizes.query)

    def own_block(self, name: str, block: int) -> pl.BlockSpec:
        """The block of tokens and the head that are a program's own, of an input or an output."""
        if name not in self.widths:  # one number of each token
            return pl.BlockSpec((None, None, block), lambda i, h, b: (b, h, i))
        return pl.BlockSpec((None, block, None, self.widths[name]), lambda i, h, b: (b, i, h, 0))

    def run(self, kernel: Any, of: str, sizes: BlockSizes, inputs: dict[str, Array], outputs: dict[str, Any]):
        """One kernel over all its programs; `outputs` are names and dtypes."""
        from jax.experimental.pallas import triton

        names, of_keys = tuple(inputs), of in ("keys", "values")
        heads, block = (self.kv_heads, sizes.key) if of_keys else (self.heads, sizes.query)
        tokens = self.padded_keys if of_keys else self.padded_queries
        shapes = [
            jax.ShapeDtypeStruct(
                (self.batch, tokens, heads, self.widths[name])
                if name in self.widths
                else (self.batch, heads, tokens),
                dtype,
            )
            for name, dtype in outputs.items()
        ]
        return pl.pallas_call(
            functools.partial(kernel, names, self.options, (self.num_keys, self.num_queries), sizes),
            grid=(tokens // block, heads, self.batch),
            in_specs=[self.spec(name, sizes, of_keys=of_keys) for name in names],
            out_specs=[self.own_block(name, block) for name in outputs],
            out_shape=shapes,
            compiler_params=triton.CompilerParams(num_warps=sizes.num_warps, num_stages=sizes.num_stages),
            interpret=self.interpret,
            name=f"flash_attention_{of}",
        )(*inputs.values())


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _attention(options: Options, config: KernelConfig, interpret: bool, arrays: dict[str, Array]):
    return _forward(options, config, interpret, arrays)[0]


def _forward(options, config, interpret, arrays):
    call = _Call(options, config, interpret, arrays)
    padded = {name: call.pad(name, array) for name, array in arrays.items()}
    outputs: dict[str, Any] = {"out": arrays["v"].dtype, "log_sum": jnp.float32}
    out, log_sum = call.run(_forward_kernel, "forward", config.forward, padded, outputs)
    out = out[:, : call.num_queries, :, : call.value_dim]
    log_sum = log_sum[..., : call.num_queries]
    return (out, log_sum * blocks.LN_2), (arrays, out, log_sum)


def _backward(options, config, interpret, residuals, gradients):
    arrays, out, log_sum = residuals
    d_out, d_log_sum = gradients
    call = _Call(options, config, interpret, arrays)
    delta = jnp.einsum("bqhd,bqhd->bhq", out.astype(jnp.float32), d_out.astype(jnp.float32)) - d_log_sum
    more = {"d_out": d_out, "log_sum": log_sum, "delta": delta}
    padded = {name: call.pad(name, array) for name, array in {**arrays, **more}.items() if name != "sinks"}

    def of_keys(of: str, sizes: BlockSizes, *makes: str):
        kernel = functools.partial(_keys_kernel, group=call.group, makes=makes)
        return call.run(kernel, of, sizes, padded, {name: arrays[name[-1]].dtype for name in makes})

    if config.values is None:
        d_k, d_v = of_keys("keys", config.keys, "d_k", "d_v")
    else:
        (d_k,), (d_v,) = of_keys("keys", config.keys, "d_k"), of_keys("values", config.values, "d_v")
    (d_q,) = call.run(_queries_kernel, "queries", config.queries, padded, {"d_q": arrays["q"].dtype})
    found = {
        "q": d_q[:, : call.num_queries, :, : call.head_dim],
        "k": d_k[:, : call.num_keys, :, : call.head_dim],
        "v": d_v[:, : call.num_keys, :, : call.value_dim],
    }
    if "sinks" in arrays:
        sinks = arrays["sinks"].astype(jnp.float32)
        weight = jnp.exp2(sinks[None, :, None] * blocks.LOG2_E - log_sum)
        found["sinks"] = -jnp.sum(weight * delta, axis=(0, 2)).astype(arrays["sinks"].dtype)
    return ({name: found.get(name) for name in arrays},)


_attention.defvjp(_forward, _backward)


def attention(
    q: Float[Array, "batch query heads head_dim"],
    k: Float[Array, "batch key kv_heads head_dim"],
    v: Float[Array, "batch key kv_heads value_dim"],
    options: AttentionOptions,
    *,
    config: KernelConfig | None = None,
    interpret: bool = False,
) -> tuple[Float[Array, "batch query heads value_dim"], Float[Array, "batch query heads"]]:
    """As `flash_attention`, without dropout; `interpret` runs the kernels on the CPU."""
    arrays = {
        "q": q,
        "k": k,
        "v": v,
        "query_offset": jnp.broadcast_to(jnp.asarray(options.query_offset, jnp.int32), q.shape[:1]),
        "key_offset": jnp.broadcast_to(jnp.asarray(options.key_offset, jnp.int32), q.shape[:1]),
    }
    if options.query_segment_ids is not None and options.key_segment_ids is not None:
        arrays |= {"query_segments": options.query_segment_ids, "key_segments": options.key_segment_ids}
    if options.sinks is not None:
        arrays["sinks"] = options.sinks
    static = Options(
        float(options.scale),
        options.causal,
        options.window,
        options.soft_cap,
        guarded=options.distance is None,
    )
    config = config or configs(q.shape[-1], v.shape[-1], q.dtype, current_device()[1])[0]
    results: Any = _attention(static, config, interpret, arrays)
    out, log_sum = results
    return out, jnp.swapaxes(log_sum, 1, 2)
