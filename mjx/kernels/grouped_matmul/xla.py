"""Grouped matmul for every device: one product for each block of rows, and none for blocks that are empty.

How many are used is known only when it runs. JAX differentiates no loop of unknown length, so that both
gradients are written here. (`lax.ragged_dot` takes every group's product of every row, on CPUs and on GPUs.)
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mjx.kernels.grouped_matmul.block_table import BLOCK, block_table
from mjx.kernels.varying import varying, varying_axes

Place = Callable[[Array], tuple[Int[Array, ""], Int[Array, ""], Bool[Array, "block 1"]]]


@jax.custom_vjp
def grouped_matmul(
    rows: Float[Array, "rows inner"],
    kernels: Float[Array, "groups inner outer"],
    sizes: Int[Array, " groups"],
) -> Float[Array, "rows outer"]:
    """As `reference.grouped_matmul`."""
    return _products(rows, kernels, sizes, contracted=0)


def _forward(rows: Array, kernels: Array, sizes: Array):
    return _products(rows, kernels, sizes, contracted=0), (rows, kernels, sizes)


def _backward(residuals: tuple[Array, Array, Array], d_out: Array):
    rows, kernels, sizes = residuals
    d_rows = _products(d_out, kernels, sizes, contracted=1)
    return d_rows, _gradient_of_kernels(rows, d_out, kernels, sizes), None


grouped_matmul.defvjp(_forward, _backward)


def _products(
    rows: Float[Array, "rows from"], kernels: Float[Array, "groups _ _"], sizes: Array, *, contracted: int
) -> Float[Array, "rows to"]:
    """Each row with its group's kernel, of which axis `contracted` is summed over."""
    used, size, place = _blocks(sizes, rows.shape[0])

    def step(number: Array, out: Array) -> Array:
        group, begin, own = place(number)
        block = jax.lax.dynamic_slice_in_dim(rows, begin, size)
        kernel = jax.lax.dynamic_index_in_dim(kernels, group, keepdims=False)
        made = _dot(block, kernel, 1, contracted).astype(out.dtype)
        before = jax.lax.dynamic_slice_in_dim(out, begin, size)
        return jax.lax.dynamic_update_slice_in_dim(out, jnp.where(own, made, before), begin, 0)

    out = jnp.zeros((rows.shape[0], kernels.shape[2 - contracted]), rows.dtype)
    return jax.lax.fori_loop(0, used, step, varying(out, varying_axes(rows)))


def _gradient_of_kernels(
    rows: Float[Array, "rows inner"],
    d_out: Float[Array, "rows outer"],
    kernels: Float[Array, "groups inner outer"],
    sizes: Array,
) -> Float[Array, "groups inner outer"]:
    used, size, place = _blocks(sizes, rows.shape[0])

    def step(number: Array, total: Array) -> Array:
        group, begin, own = place(number)
        block, d_block = (
            jnp.where(own, jax.lax.dynamic_slice_in_dim(array, begin, size), 0) for array in (rows, d_out)
        )
        of_group = jax.lax.dynamic_index_in_dim(total, group, keepdims=False) + _dot(block, d_block, 0, 0)
        return jax.lax.dynamic_update_index_in_dim(total, of_group, group, 0)

    total = jnp.zeros(kernels.shape, jnp.promote_types(kernels.dtype, jnp.float32))
    return jax.lax.fori_loop(0, used, step, varying(total, varying_axes(rows))).astype(kernels.dtype)


def _blocks(sizes: Int[Array, " groups"], rows: int) -> tuple[Int[Array, ""], int, Place]:
    """How many blocks are used, of how many rows; of one its group, where it begins, which rows are its own.

    A slice does not reach beyond an array: the last ones begin earlier, with rows of other blocks.
    """
    size = min(BLOCK, rows)
    table = block_table(sizes, rows, size)

    def place(number: Array) -> tuple[Array, Array, Array]:
        start, stop = table.start[number], table.stop[number]
        begin = jnp.minimum(start, rows - size)
        row = begin + jnp.arange(size, dtype=jnp.int32)
        return table.group[number], begin, ((row >= start) & (row < stop))[:, None]

    return table.used, size, place


def _dot(a: Array, b: Array, of_a: int, of_b: int) -> Array:
    """Summed over one axis of each, in float32 at least; float32 is never rounded to tf32."""
    return jax.lax.dot_general(
        a,
        b,
        (((of_a,), (of_b,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST if a.dtype.itemsize >= 4 else None,
        preferred_element_type=jnp.promote_types(a.dtype, jnp.float32),
    )
