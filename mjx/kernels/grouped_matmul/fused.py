"""Whole functions of rows, each row with its own group's weights: one loop over blocks of rows.

What a block makes in between never leaves it: memory is that of the tokens, whatever the groups are.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mjx.kernels.grouped_matmul.block_table import BLOCK, block_table
from mjx.kernels.varying import varying, varying_axes

Function = Callable[[Float[Array, "block inner"], Float[Array, " block"], Any], Float[Array, "block outer"]]
"""(rows, their factors, the weights of their group) → rows; a row of zeros and a factor of zero give zeros,
and a row does not depend on the others."""


def block_of(tokens: int) -> int:
    """Rows of a block: no more than a group can have of so many tokens."""
    return min(BLOCK, 1 << (tokens - 1).bit_length()) if tokens > 1 else 1


def grouped_sum(
    function: Function,
    tokens: Float[Array, "tokens inner"],
    factors: Float[Array, " rows"],
    weights: Any,
    source: Int[Array, " rows"],
    sizes: Int[Array, " groups"],
) -> Float[Array, "tokens outer"]:
    """Of every token, the sum of what `function` makes of it with the weights of its groups.

    Args:
        function: of a block of rows of one group.
        tokens: what rows are copies of.
        factors: one of every row.
        weights: a tree whose leaves have a leading axis of groups.
        source: the token of each row, rows sorted by group; no group has a token twice.
        sizes: rows of each group; rows behind their sum belong to none.
    """
    # What is the same along an axis along which something else differs has a gradient from all along it.
    axes = varying_axes(tokens, factors, weights, source, sizes)
    tokens, factors, weights = jax.tree.map(lambda leaf: varying(leaf, axes), (tokens, factors, weights))
    return _sum(function, tokens, factors, weights, source, sizes)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sum(function, tokens, factors, weights, source, sizes):
    return _forward(function, tokens, factors, weights, source, sizes)[0]


def _forward(function, tokens, factors, weights, source, sizes):
    table = block_table(sizes, source.shape[0], block_of(tokens.shape[0]))
    axes = varying_axes(tokens, factors, weights, source, sizes)

    def add(number, y):
        rows, read = _block(table, number, tokens.shape[0], source)
        out = function(*_read(read, rows, tokens, factors), _of_group(weights, table.group[number]))
        return y.at[read].add(out, mode="drop", unique_indices=True)

    shape = jax.eval_shape(
        function,
        jax.ShapeDtypeStruct((1, tokens.shape[1]), tokens.dtype),
        jax.ShapeDtypeStruct((1,), factors.dtype),
        jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), weights),
    )
    nothing = varying(jnp.zeros((tokens.shape[0], shape.shape[1]), shape.dtype), axes)
    y = jax.lax.fori_loop(0, table.used, add, nothing)
    return y, (tokens, factors, weights, source, sizes)


def _backward(function, saved, dy):
    tokens, factors, weights, source, sizes = saved
    table = block_table(sizes, source.shape[0], block_of(tokens.shape[0]))
    axes = varying_axes(tokens, factors, weights, source, sizes, dy)

    def add(number, gradients):
        d_tokens, d_factors, d_weights = gradients
        rows, read = _block(table, number, tokens.shape[0], source)
        group = table.group[number]
        inputs = (*_read(read, rows, tokens, factors), _of_group(weights, group))
        _, pull = jax.vjp(function, *inputs)
        slopes = pull(_rows(dy, read))
        d_tokens = d_tokens.at[read].add(slopes[0].astype(d_tokens.dtype), mode="drop", unique_indices=True)
        d_factors = d_factors.at[rows].set(slopes[1], mode="drop", unique_indices=True)
        d_weights = jax.tree.map(
            lambda whole, part: whole.at[group].add(part.astype(whole.dtype)), d_weights, slopes[2]
        )
        return d_tokens, d_factors, d_weights

    # Sums over blocks, in float32.
    sums = jax.tree.map(
        lambda leaf: varying(jnp.zeros(leaf.shape, jnp.promote_types(leaf.dtype, jnp.float32)), axes),
        (tokens, weights),
    )
    start = (sums[0], varying(jnp.zeros_like(factors), axes), sums[1])
    d_tokens, d_factors, d_weights = jax.lax.fori_loop(0, table.used, add, start)
    d_weights = jax.tree.map(lambda slope, leaf: slope.astype(leaf.dtype), d_weights, weights)
    return d_tokens.astype(tokens.dtype), d_factors, d_weights, None, None


_sum.defvjp(_forward, _backward)


def _block(table, number, tokens, source):
    """The rows of a block, and their tokens; beyond the end where the block has no row."""
    rows = table.start[number] + jnp.arange(block_of(tokens), dtype=jnp.int32)
    inside = rows < table.stop[number]
    read = jnp.where(inside, jnp.take(source, rows, mode="clip"), tokens)
    # Distinct beyond the end too, as the scatters are promised.
    beyond = jnp.arange(rows.shape[0], dtype=jnp.int32)
    return jnp.where(inside, rows, source.shape[0] + beyond), jnp.where(inside, read, tokens + beyond)


def _read(read, rows, tokens, factors):
    return _rows(tokens, read), jnp.take(factors, rows, mode="fill", fill_value=0)


def _rows(array, read):
    return jnp.take(array, read, axis=0, mode="fill", fill_value=0)


def _of_group(weights, group):
    return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, group, keepdims=False), weights)
