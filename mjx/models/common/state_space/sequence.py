"""Sequences that mesh axes split: each part begins with what the parts before it leave.

Nothing but the last inputs of the convolution and two summaries of each part (the sum of its steps, and the
state that it would leave by itself) goes from device to device, however long the sequence is.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mjx.errors import InputError
from mjx.kernels.documents import document_starts, keep_real
from mjx.models.common.pattern import exchanging
from mjx.models.common.split import Split


@exchanging("states")
def with_past(
    split: Split, x: Float[Array, "rows tokens ..."], past: int
) -> Float[Array, "rows past_and_tokens ..."]:
    """With the tokens before each part in front of it, zeros (segment 0) before the first.

    Raises:
        InputError: a part has fewer tokens than that.
    """
    if x.shape[1] < past:
        raise InputError(
            f"mesh.{' × '.join(split.axes)} leaves {x.shape[1]} tokens of a row to a device, and its "
            f"convolution needs the {past} before them from one other: choose longer sequences or fewer "
            "devices"
        )
    if past == 0:
        return x
    tails = split.gathered(x[:, x.shape[1] - past :])
    before = jnp.concatenate([jnp.zeros_like(tails[:1]), tails[:-1]])
    return jnp.concatenate([split.own(before), x], axis=1)


@exchanging("states")
def entering(
    split: Split,
    A: Float[Array, "channels ..."],
    steps: Float[Array, "rows tokens channels"],
    state: Float[Array, "rows channels ..."],
    segment_ids: Int[Array, "rows tokens"] | None,
) -> Float[Array, "rows channels ..."]:
    """The state that enters each part.

    Args:
        split: how the tokens lie.
        A: a state decays by exp(A · step); broadcasts against a row's state.
        steps: of each token; at padding there is none.
        state: what a part leaves where nothing enters it.
        segment_ids: of its tokens; no state goes from one document to another.
    """
    if segment_ids is None:
        total = jnp.sum(steps, axis=1)
        enters = passes = jnp.ones((split.parts * split.devices, steps.shape[0] // split.parts), bool)
    else:
        real, starts = document_starts(segment_ids)
        total = jnp.sum(keep_real(real, steps), axis=1)
        passes = ~split.gathered(jnp.any(starts, axis=1))
        enters = _continued(
            split.gathered(_at(real, segment_ids, 1)), split.gathered(_at(real, segment_ids, -1))
        )
    return _entering(split, A, total, state, enters, passes)


def _continued(
    first: Int[Array, "place batch"], last: Int[Array, "place batch"]
) -> Bool[Array, "place batch"]:
    """Whether a part begins with the document that the parts before it end with; padding is as if it were not
    there."""

    def step(document: Array, part: tuple[Array, Array]) -> tuple[Array, Array]:
        first, last = part
        return jnp.where(last == 0, document, last), (first == document) | (first == 0)

    return jax.lax.scan(step, jnp.zeros_like(first[0]), (first, last))[1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _entering(
    split: Split, A: Array, steps: Array, state: Array, enters: Array, passes: Array
) -> Float[Array, "rows channels ..."]:
    """Derived by hand: what is gathered is kept neither forward nor backward."""
    return _forward(split, A, steps, state, enters, passes)[0]


@exchanging("states")
def _forward(split: Split, A: Array, steps: Array, state: Array, enters: Array, passes: Array):
    def step(before: Array, part: tuple[Array, ...]) -> tuple[Array, Array]:
        left, steps, enters, passes = part
        entered = jnp.where(_like(enters, before), before, 0)
        return left + jnp.where(_like(passes, entered), _decay(A, steps) * entered, 0), entered

    lefts = split.gathered(state)
    parts = lefts, split.gathered(steps), enters, passes
    entered = split.own(jax.lax.scan(step, jnp.zeros_like(lefts[0]), parts)[1])
    return entered, (A, steps, entered, enters, passes)


@exchanging("states")
def _backward(split: Split, kept: tuple[Array, ...], slope: Array):
    A, steps, entered, enters, passes = kept

    def step(behind: Array, part: tuple[Array, ...]) -> tuple[Array, Array]:
        """From the gradient of what a part leaves to that of what the part before it does."""
        slope, steps, enters, passes = part
        through = jnp.where(_like(passes, behind), _decay(A, steps) * behind, 0)
        return jnp.where(_like(enters, behind), slope + through, 0), behind

    slopes = split.gathered(slope)
    parts = slopes, split.gathered(steps), enters, passes
    left = split.own(jax.lax.scan(step, jnp.zeros_like(slopes[0]), parts, reverse=True)[1])
    passed = jnp.where(_like(split.own(passes), left), left * entered, 0)
    _, pull = jax.vjp(lambda A, steps: jnp.broadcast_to(_decay(A, steps), passed.shape), A, steps)
    return *pull(passed), left, None, None


_entering.defvjp(_forward, _backward)


def _decay(A: Float[Array, "channels ..."], steps: Float[Array, "rows channels"]) -> Float[Array, "..."]:
    return jnp.exp(steps.reshape(*steps.shape, *[1] * (A.ndim - 1)) * A)


def _at(real: Array, segment_ids: Array, direction: int) -> Int[Array, " rows"]:
    """The first real token's id, or the last one's; 0 where there is none."""
    order = slice(None, None, direction)
    place = jnp.argmax(real[:, order], axis=1)[:, None]
    return jnp.take_along_axis(segment_ids[:, order], place, axis=1)[:, 0]


def _like(flags: Array, array: Array) -> Array:
    return flags.reshape(*flags.shape, *[1] * (array.ndim - flags.ndim))
