"""State-space duality as Pallas-Triton kernels, for GPUs from Ampere on.

JAX has deprecated Pallas' Triton backend: all that knows of it is in this file, and the mathematics is in
`blocks`. Three kernels, none of which adds to what another program writes:

- states: the state that enters each chunk. A program has a part of one head's state and walks the chunks;
  parts share nothing, so that there are enough programs for a whole GPU where batch × heads are too few.
  Walking from the end, it makes the gradients of the states that leave the chunks.
- outputs: a program for each chunk and a few heads of one group, which share C Bᵀ.
- gradients: likewise; the gradients of B and C are summed over its heads, and over the programs by XLA.

Cumulative sums and the exponentials of one number per token, with their gradients, are XLA's.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Bool, Float

from mjx.kernels.capability import current_device
from mjx.kernels.ssd import blocks
from mjx.kernels.ssd.configurations import Chunks, KernelConfig, default_config

_PER_HEAD = ("log_decay", "dt", "into", "deposit")
"""One float32 for each token of each head: [batch, heads, tokens]."""


class _Refs:
    """The refs of a kernel, by name."""

    def __init__(self, names: tuple[str, ...], refs: tuple[Any, ...]):
        self.refs = dict(zip(names, refs, strict=True))

    def __contains__(self, name: str) -> bool:
        return name in self.refs

    def load(self, name: str, *place: Any) -> Array:
        """`place`: for each axis None (all of it), (begin, size), or the number of one element."""
        from jax.experimental.pallas import triton

        loaded = triton.load(self.refs[name].at[_slices(place)])
        kept = [size for size, at in zip(loaded.shape, place, strict=True) if at is None or isinstance(at, tuple)]
        return loaded.reshape(kept)

    def store(self, name: str, value: Array, *place: Any) -> None:
        from jax.experimental.pallas import triton

        ref, sizes = self.refs[name], iter(value.shape)
        shape = [next(sizes) if at is None or isinstance(at, tuple) else 1 for at in place]
        triton.store(ref.at[_slices(place)], value.astype(ref.dtype).reshape(shape))


def _slices(place: tuple[Any, ...]) -> tuple[Any, ...]:
    # Interpret mode knows no plain integers.
    return tuple(
        slice(None) if at is None else pl.ds(*at) if isinstance(at, tuple) else pl.ds(at, 1) for at in place
    )


def _states_kernel(names: tuple[str, ...], config: KernelConfig, chunks: int, reverse: bool, *refs):
    inputs = _Refs(names, refs)
    values, keys, weight = ("d_y", "C", "into") if reverse else ("x", "B", "deposit")

    def step(turn: Any, state: Array) -> Array:
        chunk = chunks - 1 - turn if reverse else turn
        tokens = (chunk * config.chunk, config.chunk)
        inputs.store("states", state, chunk, None, None)
        x = inputs.load(values, tokens, None)
        if reverse and "z" in inputs:
            x = blocks.gate(x, inputs.load("z", tokens, None)).astype(x.dtype)
        through = inputs.load("through", (chunk, 1)).reshape(1, 1)
        return blocks.advance(state, through, inputs.load(weight, tokens), x, inputs.load(keys, tokens, None))

    state = jax.lax.fori_loop(0, chunks, step, inputs.load("boundary", None, None))
    inputs.store("last", state, None, None)


class _Chunk(_Refs):
    """A chunk and the heads of one group, as the two kernels that have a program for each see them."""

    def __init__(self, names: tuple[str, ...], refs: tuple[Any, ...], size: int):
        super().__init__(names, refs)
        self.B, self.C = self.load("B", None, None), self.load("C", None, None)
        document = self.load("document", None) if "document" in self else None
        self.sees = blocks.before(size, document, itself=True)
        self.scores = blocks.product(self.C, self.B, transpose_b=True)

    def of_head(self, head: Any) -> tuple[Array, blocks.Weights, Array, Array | None]:
        """x, its weights, the state that enters, and D."""
        weights = blocks.Weights(*(self.load(name, head, None) for name in _PER_HEAD))
        D = self.load("D", head, None) if "D" in self else None
        return self.load("x", None, head, None), weights, self.load("states", head, None, None), D


def _outputs_kernel(names: tuple[str, ...], config: KernelConfig, heads: int, *refs):
    chunk = _Chunk(names, refs, config.chunk)

    def step(head: Any, carry: Array) -> Array:
        x, weights, state, D = chunk.of_head(head)
        y = blocks.output(chunk.scores, chunk.sees, weights, x, chunk.C, state, D)
        if "z" in chunk:
            y = blocks.gate(y, chunk.load("z", None, head, None))
        chunk.store("y", y, None, head, None)
        return carry

    jax.lax.fori_loop(0, heads, step, jnp.int32(0))


def _gradients_kernel(names: tuple[str, ...], config: KernelConfig, heads: int, *refs):
    chunk = _Chunk(names, refs, config.chunk)

    def step(head: Any, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        x, weights, state, D = chunk.of_head(head)
        d_y, d_state = chunk.load("d_y", None, head, None), chunk.load("d_states", head, None, None)
        if "z" in chunk:
            y = blocks.output(chunk.scores, chunk.sees, weights, x, chunk.C, state, D)
            z = chunk.load("z", None, head, None)
            chunk.store("d_z", blocks.gate_gradient(y, z, d_y), None, head, None)
            d_y = blocks.gate(d_y, z).astype(x.dtype)
        found = blocks.gradients(
            chunk.scores, chunk.sees, weights, x, chunk.B, chunk.C, state, d_y, d_state, D
        )
        chunk.store("d_x", found.x, None, head, None)
        for name, gradient in zip(_PER_HEAD, found.weights, strict=True):
            chunk.store(f"d_{name}", gradient, head, None)
        d_through = jnp.sum(state.astype(jnp.float32) * d_state.astype(jnp.float32), axis=1)
        chunk.store("d_through", d_through, head, None)
        if D is not None:
            chunk.store("d_D", jnp.sum(x.astype(jnp.float32) * d_y.astype(jnp.float32), axis=0), head, None)
        return sums[0] + found.B, sums[1] + found.C

    nothing = jnp.zeros(chunk.B.shape, jnp.float32)
    d_B, d_C = jax.lax.fori_loop(0, heads, step, (nothing, nothing))
    chunk.store("d_B", d_B, None, None)
    chunk.store("d_C", d_C, None, None)


class _Call:
    """Shapes and layouts of one call, and its kernels. Arrays are padded already."""

    def __init__(self, config: KernelConfig, interpret: bool, arrays: dict[str, Array]):
        self.config, self.interpret = config, interpret
        self.batch, self.tokens, self.heads, self.head_dim = arrays["x"].shape
        self.groups, self.state = arrays["B"].shape[2:]
        self.of_group = self.heads // self.groups
        self.chunks = self.tokens // config.chunk
        self.dtype = arrays["x"].dtype

    def states(self, arrays: dict[str, Array], boundary: Array, *, reverse: bool) -> tuple[Array, Array]:
        """The state before each chunk, in the type of x, and the last one; in reverse, their gradients."""
        used = ("d_y", "z", "C", "into", "through") if reverse else ("x", "B", "deposit", "through")
        inputs = {name: arrays[name] for name in used if name in arrays} | {"boundary": boundary}
        sizes, of_group, tokens, chunks = self.config.states, self.of_group, self.tokens, self.chunks
        rows, columns = min(sizes.head_dim, self.head_dim), min(sizes.state, self.state)
        across = self.state // columns

        def spec(name: str) -> pl.BlockSpec:
            if name in ("x", "d_y", "z"):
                return pl.BlockSpec((None, tokens, None, rows), lambda i, h, b: (b, 0, h, i // across))
            if name in ("B", "C"):
                return pl.BlockSpec(
                    (None, tokens, None, columns), lambda i, h, b: (b, 0, h // of_group, i % across)
                )
            if name in ("boundary", "last"):
                return pl.BlockSpec((None, None, rows, columns), lambda i, h, b: (b, h, i // across, i % across))
            if name == "states":
                return pl.BlockSpec(
                    (None, chunks, None, rows, columns), lambda i, h, b: (b, 0, h, i // across, i % across)
                )
            length = chunks if name == "through" else tokens
            return pl.BlockSpec((None, None, length), lambda i, h, b: (b, h, 0))

        shape = (self.batch, chunks, self.heads, self.head_dim, self.state)
        outputs = {
            "states": jax.ShapeDtypeStruct(shape, self.dtype),
            "last": jax.ShapeDtypeStruct(boundary.shape, jnp.float32),
        }
        kernel = functools.partial(
            _states_kernel, (*inputs, *outputs), self.config, self.chunks, reverse
        )
        grid = (self.head_dim // rows * across, self.heads, self.batch)
        found = self.run(kernel, "d_states" if reverse else "states", sizes, grid, spec, inputs, outputs)
        return found["states"], found["last"]

    def of_chunks(
        self, kernel: Any, name: str, sizes: Chunks, inputs: dict[str, Array], outputs: dict[str, Any]
    ) -> dict[str, Array]:
        """A kernel with a program for each chunk and a few heads."""
        heads = self.heads_of_program(sizes)
        blocks_of_group, size = self.of_group // heads, self.config.chunk

        def spec(name: str) -> pl.BlockSpec:
            if name in ("x", "y", "z", "d_y", "d_x", "d_z"):
                return pl.BlockSpec((None, size, heads, self.head_dim), lambda c, h, b: (b, c, h, 0))
            if name in ("B", "C"):
                return pl.BlockSpec(
                    (None, size, None, self.state), lambda c, h, b: (b, c, h // blocks_of_group, 0)
                )
            if name in ("d_B", "d_C"):
                return pl.BlockSpec((None, size, None, self.state), lambda c, h, b: (b, c, h, 0))
            if name in ("states", "d_states"):
                return pl.BlockSpec(
                    (None, None, heads, self.head_dim, self.state), lambda c, h, b: (b, c, h, 0, 0)
                )
            if name in ("d_through", "d_D"):
                return pl.BlockSpec((None, None, heads, self.head_dim), lambda c, h, b: (b, c, h, 0))
            if name == "D":
                return pl.BlockSpec((heads, self.head_dim), lambda c, h, b: (h, 0))
            if name == "document":
                return pl.BlockSpec((None, size), lambda c, h, b: (b, c))
            return pl.BlockSpec((None, heads, size), lambda c, h, b: (b, h, c))

        kernel = functools.partial(kernel, (*inputs, *outputs), self.config, heads)
        grid = (self.chunks, self.heads // heads, self.batch)
        return self.run(kernel, name, sizes, grid, spec, inputs, outputs)

    def heads_of_program(self, sizes: Chunks) -> int:
        """As many as allowed, of one group."""
        return max(n for n in range(1, sizes.heads + 1) if self.of_group % n == 0)

    def run(self, kernel: Any, name: str, sizes: Any, grid, spec, inputs, outputs) -> dict[str, Array]:
        from jax.experimental.pallas import triton

        found = pl.pallas_call(
            kernel,
            grid=grid,
            in_specs=[spec(name) for name in inputs],
            out_specs=[spec(name) for name in outputs],
            out_shape=list(outputs.values()),
            compiler_params=triton.CompilerParams(num_warps=sizes.num_warps, num_stages=sizes.num_stages),
            interpret=self.interpret,
            name=f"ssd_{name}",
        )(*inputs.values())
        return dict(zip(outputs, found, strict=True))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scan(config: KernelConfig, interpret: bool, arrays: dict[str, Array]) -> tuple[Array, Array]:
    return _forward(config, interpret, arrays)[0]


def _forward(config, interpret, arrays):
    call = _Call(config, interpret, arrays)
    states, last = call.states(arrays, arrays["initial_state"], reverse=False)
    used = ("x", "B", "C", "z", "D", "document", *_PER_HEAD)
    inputs = {name: arrays[name] for name in used if name in arrays} | {"states": states}
    outputs = {"y": jax.ShapeDtypeStruct(arrays["x"].shape, call.dtype)}
    y = call.of_chunks(_outputs_kernel, "outputs", config.outputs, inputs, outputs)["y"]
    return (y, last), (arrays, states)


def _backward(config, interpret, residuals, cotangents):
    arrays, states = residuals
    call = _Call(config, interpret, arrays)
    arrays = arrays | {"d_y": cotangents[0]}
    d_states, d_initial = call.states(arrays, cotangents[1], reverse=True)
    inputs = {name: array for name, array in arrays.items() if name not in ("through", "initial_state")}
    inputs |= {"states": states, "d_states": d_states}
    programs = call.heads // call.heads_of_program(config.gradients)
    shared = jax.ShapeDtypeStruct((call.batch, call.tokens, programs, call.state), jnp.float32)
    of_features = jax.ShapeDtypeStruct((call.batch, call.chunks, call.heads, call.head_dim), jnp.float32)
    outputs = {"d_x": arrays["x"], "d_B": shared, "d_C": shared, "d_through": of_features}
    outputs |= {f"d_{name}": arrays[name] for name in (*_PER_HEAD, "z") if name in arrays}
    if "D" in arrays:
        outputs["d_D"] = of_features
    outputs = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in outputs.items()}
    found = call.of_chunks(_gradients_kernel, "gradients", config.gradients, inputs, outputs)
    for name in ("d_B", "d_C"):
        parts = found[name].reshape(call.batch, call.tokens, call.groups, -1, call.state)
        found[name] = jnp.sum(parts, axis=3).astype(call.dtype)
    found["d_through"] = jnp.swapaxes(jnp.sum(found["d_through"], axis=-1), 1, 2)
    if "D" in arrays:
        found["d_D"] = jnp.sum(found["d_D"], axis=(0, 1))
    found["d_initial_state"] = d_initial
    return ({name: found.get(f"d_{name}") for name in residuals[0]},)


_scan.defvjp(_forward, _backward)


def ssd(
    x: Float[Array, "batch sequence heads head_dim"],
    dt: Float[Array, "batch sequence heads"],
    A: Float[Array, " heads"],
    B: Float[Array, "batch sequence groups state"],
    C: Float[Array, "batch sequence groups state"],
    *,
    D: Float[Array, "heads #head_dim"] | None,
    z: Float[Array, "batch sequence heads head_dim"] | None,
    initial_state: Float[Array, "batch heads head_dim state"],
    starts: Bool[Array, "batch sequence"] | None,
    chunk_size: int,
    config: KernelConfig | None = None,
    interpret: bool = False,
) -> tuple[Float[Array, "batch sequence heads head_dim"], Float[Array, "batch heads head_dim state"]]:
    """As `reference.ssd`. The configuration has its own chunks; `interpret` runs the kernels on the CPU."""
    del chunk_size
    length, head_dim, state = x.shape[1], x.shape[3], B.shape[3]
    config = config or default_config(head_dim, state, x.dtype, current_device()[1])
    tokens = -(-length // config.chunk) * config.chunk
    features, state_features = _power_of_two(head_dim), _power_of_two(state)
    arrays = {
        "x": _pad_to(x, {1: tokens, 3: features}),
        "B": _pad_to(B, {1: tokens, 3: state_features}),
        "C": _pad_to(C, {1: tokens, 3: state_features}),
        "initial_state": _pad_to(initial_state, {2: features, 3: state_features}),
        # Behind the end dt is zero, which leaves the state as it is.
        **_weights(_pad_to(dt, {1: tokens}), A, _pad_to(starts, {1: tokens}), config.chunk),
    }
    if z is not None:
        arrays["z"] = _pad_to(z, {1: tokens, 3: features})
    if D is not None:
        arrays["D"] = _pad_to(jnp.broadcast_to(D, (x.shape[2], head_dim)), {1: features})
    results: Any = _scan(config, interpret, arrays)
    y, last = results
    return y[:, :length, :, :head_dim], last[:, :, :head_dim, :state]


def _weights(
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


def _power_of_two(size: int) -> int:
    # A product wants at least 16.
    return max(16, 1 << math.ceil(math.log2(size)))


def _pad_to(array: Any, sizes: dict[int, int]) -> Any:
    if array is None:
        return None
    padding = [(0, sizes.get(axis, size) - size) for axis, size in enumerate(array.shape)]
    return jnp.pad(array, padding) if any(after for _, after in padding) else array
