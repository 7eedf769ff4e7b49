"""Grouped matmul: rows sorted by group, each group with a kernel of its own, as experts have."""

from importlib import import_module

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mjx.kernels.arguments import check_dtypes, check_shapes
from mjx.kernels.call import given, implementation_of
from mjx.kernels.grouped_matmul.implementations import IMPLEMENTATIONS
from mjx.kernels.varying import varying, varying_axes


def grouped_matmul(
    rows: Float[Array, "rows inner"],
    kernels: Float[Array, "groups inner outer"],
    sizes: Int[Array, " groups"],
    *,
    implementation: str = "auto",
) -> Float[Array, "rows outer"]:
    """rows[i] @ kernels[g], where g is the group of row i: the first sizes[0] rows are of group 0, and so on.

    A group may be empty. The sizes add up to at most the number of rows, which nothing checks; the output of
    rows behind them is unspecified, and so is the gradient of these rows: do not read them. Whatever they
    hold, they are in no gradient of `kernels`.

    Products are summed in float32, and so are the gradients over the rows of a group.

    `implementation` is one of `mjx backends`; `auto` takes the first that can do it here.

    Raises InputError for shapes and types that do not fit.
    """
    rows, kernels, sizes = given(rows, kernels, sizes)
    found = check_shapes(
        "grouped_matmul",
        {
            "rows": (rows, "rows inner"),
            "kernels": (kernels, "groups inner outer"),
            "sizes": (sizes, "groups"),
        },
    )
    check_dtypes(
        "grouped_matmul", same={"rows": rows, "kernels": kernels}, floating={}, integer={"sizes": sizes}
    )
    name = implementation_of(
        *("grouped_matmul", IMPLEMENTATIONS, implementation),
        dtype=rows.dtype.name,
        asked={},
        sizes={"inner": found["inner"], "outer": found["outer"]},
    )
    # Kernels that are the same everywhere have a gradient from everywhere.
    axes = varying_axes(rows, kernels, sizes)
    rows, kernels, sizes = (varying(array, axes) for array in (rows, kernels, sizes.astype(jnp.int32)))
    return import_module(f"{__name__}.{name}").grouped_matmul(rows, kernels, sizes)
