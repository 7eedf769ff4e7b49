"""State-space duality as Pallas-Triton kernels, for GPUs from Ampere on.

JAX has deprecated Pallas' Triton backend: all that knows of it is in this file, and the mathematics is in
`blocks`. Four kernels, none of which adds to what another program writes:

- states: the state that enters each chunk. A program has a part of one head's state and walks the chunks;
  parts share nothing, so that there are enough programs for a whole GPU where batch × heads are too few.
  Walking from the end, it makes the gradients of the states that leave the chunks.
- outputs: a program for each chunk and a few heads of one group, which share C Bᵀ.
- inputs: likewise, the gradients of what each head has for itself: x and the weights of tokens.
- shared: likewise, the gradients of B and C, summed over the program's heads, and over programs by XLA.

Cumulative sums and the exponentials of one number per token, with their gradients, are XLA's.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Bool, Float

from mjx.kernels.capability import current_device
from mjx.kernels.padding import pad_to, power_of_two
from mjx.kernels.ssd import blocks
from mjx.kernels.ssd.configurations import Chunks, KernelConfig, default_config
from mjx.kernels.ssd.decays import weigh

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
        return loaded.reshape([size for size, at in zip(loaded.shape, place, strict=True) if _is_kept(at)])

    def store(self, name: str, value: Array, *place: Any) -> None:
        from jax.experimental.pallas import triton

        ref, sizes = self.refs[name], iter(value.shape)
        shape = [next(sizes) if _is_kept(at) else 1 for at in place]
        triton.store(ref.at[_slices(place)], value.astype(ref.dtype).reshape(shape))


def _is_kept(at: Any) -> bool:
    return at is None or isinstance(at, tuple)


def _slices(place: tuple[Any, ...]) -> tuple[Any, ...]:
    # Interpret mode knows no plain integers.
    return tuple(slice(None) if at is None else pl.ds(*at) if _is_kept(at) else pl.ds(at, 1) for at in place)


def _states_kernel(names: tuple[str, ...], size: int, chunks: int, reverse: bool, *refs):
    inputs = _Refs(names, refs)
    values, keys, weight = ("d_y", "C", "into") if reverse else ("x", "B", "deposit")

    def step(turn: Any, state: Array) -> Array:
        chunk = chunks - 1 - turn if reverse else turn
        tokens = (chunk * size, size)
        inputs.store("d_states" if reverse else "states", state, chunk, None, None)
        x = inputs.load(values, tokens, None)
        if reverse:
            entered = inputs.load("states", chunk, None, None).astype(jnp.float32)
            inputs.store("d_through", jnp.sum(entered * state, axis=1), chunk, None)
        through = inputs.load("through", (chunk, 1)).reshape(1, 1)
        return blocks.advance(state, through, inputs.load(weight, tokens), x, inputs.load(keys, tokens, None))

    state = jax.lax.fori_loop(0, chunks, step, inputs.load("boundary", None, None))
    inputs.store("last", state, None, None)


class _Chunk(_Refs):
    """A chunk and some heads of one group, as the kernels see them that have a program for each."""

    def __init__(self, names: tuple[str, ...], refs: tuple[Any, ...], part: int):
        super().__init__(names, refs)
        self.part = part

    def visible(self, scores: Array, *, transposed: bool = False) -> Array:
        document = self.load("document", None) if "document" in self else None
        return blocks.visible(scores, document, transposed=transposed)

    def parts(self) -> list[tuple[int, int]]:
        """Of the state, so many features at a time that the operands of a product fit into registers."""
        size = self.refs["B"].shape[-1]
        part = min(self.part, size)
        return [(begin, part) for begin in range(0, size, part)]

    def scores(self, rows: str, columns: str) -> Array:
        """C Bᵀ or B Cᵀ, which the heads share; zero where a token does not see the other."""
        return self.visible(self.over_state((rows, None), (columns, None)), transposed=rows == "B")

    def through_state(self, tokens: str, states: str, head: Any) -> Array:
        """C or B times a state."""
        return self.over_state((tokens, None), (states, head, None))

    def over_state(self, a: tuple[Any, ...], b: tuple[Any, ...]) -> Array:
        """A product over the state's features of two refs, each with its place in all axes but the last."""
        first, *others = self.parts()
        total = blocks.product(self.load(*a, first), self.load(*b, first), transpose_b=True)
        for part in others:
            total += blocks.product(self.load(*a, part), self.load(*b, part), transpose_b=True)
        return total

    def weights(self, head: Any) -> blocks.Weights:
        return blocks.Weights(*(self.load(name, head, None) for name in _PER_HEAD))

    def x(self, head: Any) -> Array:
        return self.load("x", None, head, None)

    def d_y(self, head: Any) -> Array:
        return self.load("d_y", None, head, None)

    def skip(self, head: Any) -> Array | None:
        return self.load("D", head, None) if "D" in self else None


def _outputs_kernel(names: tuple[str, ...], chunk: int, sizes: Chunks, heads: int, *refs):
    here = _Chunk(names, refs, sizes.state)
    scores = here.scores("C", "B")

    def step(head: Any, carry: Array) -> Array:
        read = here.through_state("C", "states", head)
        y = blocks.output(scores, here.weights(head), here.x(head), read, here.skip(head))
        if "z" in here:
            y = blocks.gate(y, here.load("z", None, head, None))
        here.store("y", y, None, head, None)
        return carry

    jax.lax.fori_loop(0, heads, step, jnp.int32(0))


def _inputs_kernel(names: tuple[str, ...], chunk: int, sizes: Chunks, heads: int, *refs):
    here = _Chunk(names, refs, sizes.state)
    scores = here.scores("B", "C")

    def step(head: Any, carry: Array) -> Array:
        # In this order, and each stored at once, few matrices have to be in registers together.
        x, d_y, weights, D = here.x(head), here.d_y(head), here.weights(head), here.skip(head)
        decayed = scores * blocks.decay(weights.log_decay, transposed=True)
        d_log_decay, d_dt = blocks.mixing_gradients(decayed, weights, x, d_y)
        here.store("d_log_decay", d_log_decay, head, None)
        here.store("d_dt", d_dt, head, None)
        written = here.through_state("B", "d_states", head)
        here.store("d_deposit", blocks.overlap(written, x), head, None)
        here.store("d_x", blocks.x_gradient(decayed, weights, d_y, written, D), None, head, None)
        here.store("d_into", blocks.overlap(here.through_state("C", "states", head), d_y), head, None)
        return carry

    jax.lax.fori_loop(0, heads, step, jnp.int32(0))


def _shared_kernel(names: tuple[str, ...], chunk: int, sizes: Chunks, heads: int, *refs):
    here = _Chunk(names, refs, sizes.state)

    def step(head: Any, sums: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        d_scores, d_B, d_C = sums
        x, d_y, weights = here.x(head), here.d_y(head), here.weights(head)
        d_state, state = (here.load(name, head, None, None) for name in ("d_states", "states"))
        d_B += blocks.product(blocks.weighted(x, weights.deposit), d_state)
        d_C += blocks.product(blocks.weighted(d_y, weights.into), state)
        return d_scores + blocks.score_gradient(weights, x, d_y), d_B, d_C

    B, C = here.load("B", None, None), here.load("C", None, None)
    nothing = jnp.zeros(B.shape, jnp.float32)
    d_scores = jnp.zeros((chunk, chunk), jnp.float32)
    d_scores, d_B, d_C = jax.lax.fori_loop(0, heads, step, (d_scores, nothing, nothing))
    # Of all the heads at once, since C Bᵀ is the same for all.
    d_scores = here.visible(d_scores).astype(B.dtype)
    here.store("d_B", d_B + blocks.product(d_scores, C, transpose_a=True), None, None)
    here.store("d_C", d_C + blocks.product(d_scores, B), None, None)


class _Call:
    """Shapes and layouts of one call, and its kernels. Arrays are padded already."""

    def __init__(self, config: KernelConfig, interpret: bool, arrays: dict[str, Array]):
        self.config, self.interpret = config, interpret
        self.batch, self.tokens, self.heads, self.head_dim = arrays["x"].shape
        self.groups, self.state = arrays["B"].shape[2:]
        self.of_group = self.heads // self.groups
        self.chunks = self.tokens // config.chunk
        self.dtype = arrays["x"].dtype

    def states(self, arrays: dict[str, Array], boundary: Array, *, reverse: bool) -> dict[str, Array]:
        """Before each chunk, in the type of x, and the last one; in reverse, their gradients."""
        used = ("d_y", "C", "into", "through", "states") if reverse else ("x", "B", "deposit", "through")
        inputs = {name: arrays[name] for name in used if name in arrays} | {"boundary": boundary}
        sizes, of_group, tokens, chunks = self.config.states, self.of_group, self.tokens, self.chunks
        rows, columns = min(sizes.head_dim, self.head_dim), min(sizes.state, self.state)
        across = self.state // columns

        def spec(name: str) -> pl.BlockSpec:
            if name in ("x", "d_y"):
                return pl.BlockSpec((None, tokens, None, rows), lambda i, h, b: (b, 0, h, i // across))
            if name in ("B", "C"):
                return pl.BlockSpec(
                    (None, tokens, None, columns), lambda i, h, b: (b, 0, h // of_group, i % across)
                )
            if name in ("boundary", "last"):
                return pl.BlockSpec(
                    (None, None, rows, columns), lambda i, h, b: (b, h, i // across, i % across)
                )
            if name in ("states", "d_states"):
                return pl.BlockSpec(
                    (None, chunks, None, rows, columns), lambda i, h, b: (b, 0, h, i // across, i % across)
                )
            if name == "d_through":
                return pl.BlockSpec((None, None, chunks, rows), lambda i, h, b: (b, h, 0, i))
            length = chunks if name == "through" else tokens
            return pl.BlockSpec((None, None, length), lambda i, h, b: (b, h, 0))

        parts = self.head_dim // rows * across
        states = jax.ShapeDtypeStruct((self.batch, chunks, self.heads, self.head_dim, self.state), self.dtype)
        outputs = {"d_states" if reverse else "states": states, "last": boundary}
        if reverse:
            # A sum over the columns for each of a program's rows; XLA adds up the rest.
            shape = (self.batch, self.heads, chunks, parts * rows)
            outputs["d_through"] = jax.ShapeDtypeStruct(shape, jnp.float32)
        kernel = functools.partial(_states_kernel, (*inputs, *outputs), self.config.chunk, chunks, reverse)
        grid = (parts, self.heads, self.batch)
        return self.run(kernel, "d_states" if reverse else "states", sizes, grid, spec, inputs, outputs)

    def of_chunks(
        self, kernel: Any, name: str, sizes: Chunks, inputs: dict[str, Array], outputs: dict[str, Any]
    ) -> dict[str, Array]:
        """A kernel with a program for each chunk and a few heads, and for `shared` each part of the state."""
        heads, of_group, size = self.heads_of_program(sizes), self.of_group, self.config.chunk
        split = name == "shared"
        width = min(sizes.state, self.state) if split else self.state
        parts = self.state // width

        def group(i: Any) -> Any:
            return i // parts * heads // of_group

        def spec(name: str) -> pl.BlockSpec:
            if name in ("x", "y", "z", "d_y", "d_x"):
                return pl.BlockSpec((None, size, heads, self.head_dim), lambda c, i, b: (b, c, i // parts, 0))
            if name in ("B", "C"):
                return pl.BlockSpec(
                    (None, size, None, width),
                    lambda c, i, b: (b, c, i // parts * heads // of_group, i % parts),
                )
            if name in ("d_B", "d_C"):
                return pl.BlockSpec((None, size, None, width), lambda c, i, b: (b, c, i // parts, i % parts))
            if name in ("states", "d_states"):
                return pl.BlockSpec(
                    (None, None, heads, self.head_dim, width),
                    lambda c, i, b: (b, c, i // parts, 0, i % parts),
                )
            if name == "D":
                return pl.BlockSpec((heads, self.head_dim), lambda c, i, b: (i // parts, 0))
            if name == "document":
                return pl.BlockSpec((None, size), lambda c, i, b: (b, c))
            return pl.BlockSpec((None, heads, size), lambda c, i, b: (b, i // parts, c))

        kernel = functools.partial(kernel, (*inputs, *outputs), size, sizes, heads)
        grid = (self.chunks, self.heads // heads * parts, self.batch)
        return self.run(kernel, name, sizes, grid, spec, inputs, outputs)

    def outputs(self, arrays: dict[str, Array]) -> Array:
        used = ("x", "B", "C", "z", "D", "document", "states", *_PER_HEAD)
        inputs = {name: arrays[name] for name in used if name in arrays}
        return self.of_chunks(_outputs_kernel, "outputs", self.config.outputs, inputs, {"y": arrays["x"]})[
            "y"
        ]

    def heads_of_program(self, sizes: Chunks) -> int:
        """As many as allowed, of one group."""
        return max(n for n in range(1, sizes.heads + 1) if self.of_group % n == 0)

    def run(self, kernel: Any, name: str, sizes: Any, grid, spec, inputs, outputs) -> dict[str, Array]:
        from jax.experimental.pallas import triton

        shapes = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in outputs.values()]
        found = pl.pallas_call(
            kernel,
            grid=grid,
            in_specs=[spec(name) for name in inputs],
            out_specs=[spec(name) for name in outputs],
            out_shape=shapes,
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
    found = call.states(arrays, arrays["initial_state"], reverse=False)
    y = call.outputs({**arrays, "states": found["states"]})
    return (y, found["last"]), (arrays, found["states"])


def _backward(config, interpret, residuals, cotangents):
    arrays, states = residuals
    call, names = _Call(config, interpret, arrays), tuple(arrays)
    d_y, gradients_outside = cotangents[0].astype(jnp.float32), {}
    arrays = {**arrays, "states": states}
    if "z" in arrays:
        # y is made again rather than kept, and z met here: three kernels would each have to read it.
        z = arrays.pop("z")
        _, of_z = jax.vjp(functools.partial(blocks.gate, call.outputs(arrays)), z)
        (gradients_outside["d_z"],) = of_z(d_y)
        d_y = blocks.gate(d_y, z)
    if "D" in arrays:
        # Here, since the kernels have the gradient of y rounded to the type of x.
        gradients_outside["d_D"] = jnp.sum(arrays["x"].astype(jnp.float32) * d_y, axis=(0, 1))
    arrays["d_y"] = d_y.astype(call.dtype)
    found = call.states(arrays, cotangents[1], reverse=True)
    found |= gradients_outside | {"d_initial_state": found.pop("last")}
    found["d_through"] = jnp.sum(found["d_through"], axis=-1)
    arrays |= {"d_states": found.pop("d_states")}

    inputs = {name: array for name, array in arrays.items() if name not in ("through", "initial_state")}
    outputs = {f"d_{name}": arrays[name] for name in ("x", *_PER_HEAD)}
    found |= call.of_chunks(_inputs_kernel, "inputs", config.inputs, inputs, outputs)

    inputs = {name: array for name, array in inputs.items() if name != "D"}
    programs = call.heads // call.heads_of_program(config.shared)
    part = jax.ShapeDtypeStruct((call.batch, call.tokens, programs, call.state), jnp.float32)
    parts = call.of_chunks(_shared_kernel, "shared", config.shared, inputs, {"d_B": part, "d_C": part})
    for name, array in parts.items():
        of_group = array.reshape(call.batch, call.tokens, call.groups, -1, call.state)
        found[name] = jnp.sum(of_group, axis=3).astype(call.dtype)
    return ({name: found.get(f"d_{name}") for name in names},)


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
    # A product wants at least 16.
    features, state_features = (max(16, power_of_two(size)) for size in (head_dim, state))
    arrays = {
        "x": pad_to(x, {1: tokens, 3: features}),
        "B": pad_to(B, {1: tokens, 3: state_features}),
        "C": pad_to(C, {1: tokens, 3: state_features}),
        "initial_state": pad_to(initial_state, {2: features, 3: state_features}),
        # Behind the end dt is zero, which leaves the state as it is.
        **weigh(
            pad_to(dt, {1: tokens}), A, None if starts is None else pad_to(starts, {1: tokens}), config.chunk
        ),
    }
    if z is not None:
        arrays["z"] = pad_to(z, {1: tokens, 3: features})
    if D is not None:
        arrays["D"] = pad_to(jnp.broadcast_to(D, (x.shape[2], head_dim)), {1: features})
    results: Any = _scan(config, interpret, arrays)
    y, last = results
    return y[:, :length, :, :head_dim], last[:, :, :head_dim, :state]
