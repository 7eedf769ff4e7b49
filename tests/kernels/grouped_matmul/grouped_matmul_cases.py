"""What grouped matmul is given in these tests, and what is right."""

import jax
import jax.numpy as jnp
import numpy as np

from mjx.kernels.grouped_matmul import grouped_matmul

ROWS, INNER, OUTER = 200, 24, 40
"""Multiples of no block."""


def case(*sizes, rows=ROWS, inner=INNER, outer=OUTER, dtype="float32"):
    """Rows of no group are NaN, and so is what comes back for them."""
    random = np.random.RandomState(0)
    arrays = {
        "rows": random.randn(rows, inner),
        "kernels": random.randn(len(sizes), inner, outer),
        "d_out": random.randn(rows, outer),
    }
    for name in ("rows", "d_out"):
        arrays[name][sum(sizes) :] = np.nan
    arrays = {name: array.astype(jnp.dtype(dtype)) for name, array in arrays.items()}
    return {**arrays, "sizes": np.array(sizes, np.int32)}


CASES = {
    "groups of all sizes": case(60, 0, 77, 3, 60),
    "all rows in one group": case(0, 0, 200, 0, 0),
    "empty groups first and last": case(0, 64, 64, 72, 0),
    "one row in the last group, and many of none": case(0, 0, 0, 0, 1),
    "rows of no group": case(30, 0, 63, 65, 2),
    "no row in any group": case(0, 0, 0, 0, 0),
    "one row": case(0, 1, 0, rows=1),
    "blocks that are full": case(32, 64, rows=96, inner=32, outer=32),
}
HALF = {dtype: case(60, 0, 77, 3, 60, dtype=dtype) for dtype in ("bfloat16", "float16")}


@jax.jit(static_argnames="implementation")
def evaluate(rows, kernels, sizes, d_out, implementation):
    """The output, and both gradients."""

    def forward(rows, kernels):
        return grouped_matmul(rows, kernels, sizes, implementation=implementation)

    out, transpose = jax.vjp(forward, rows, kernels)
    d_rows, d_kernels = transpose(d_out)
    return {"out": out, "d_rows": d_rows, "d_kernels": d_kernels}


def exact(rows, kernels, sizes, d_out):
    """In NumPy's float64, one group after the other, and the rows of a group alone."""
    rows, kernels, d_out = (np.asarray(array, np.float64) for array in (rows, kernels, d_out))
    out, d_rows, d_kernels, first = (
        [np.zeros((0, kernels.shape[2]))],
        [np.zeros((0, kernels.shape[1]))],
        [],
        0,
    )
    for kernel, size in zip(kernels, sizes, strict=True):
        own = slice(first, first + size)
        out.append(rows[own] @ kernel)
        d_rows.append(d_out[own] @ kernel.T)
        d_kernels.append(rows[own].T @ d_out[own])
        first += size
    return {"out": np.concatenate(out), "d_rows": np.concatenate(d_rows), "d_kernels": np.stack(d_kernels)}


def assert_right(results, given, relative=0.0):
    """To 1e-5 of the largest magnitude and `relative` of each; rows of no group may be anything."""
    for name, expected in exact(**given).items():
        result = np.asarray(results[name])
        assert result.dtype == given["rows"].dtype, name
        result = result if name == "d_kernels" else result[: len(expected)]
        atol = 1e-5 * np.abs(expected).max(initial=0)
        np.testing.assert_allclose(
            result.astype(np.float64), expected, rtol=relative, atol=atol, err_msg=name
        )


ROUNDED = {"bfloat16": 2.0**-8, "float16": 2.0**-11}
"""By how much a number changes when it is rounded once: what is summed in the type itself is further off."""
