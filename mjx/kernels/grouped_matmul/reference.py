"""Grouped matmul as every group's product with every row, of which each row keeps one."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def grouped_matmul(
    rows: Float[Array, "rows inner"],
    kernels: Float[Array, "groups inner outer"],
    sizes: Int[Array, " groups"],
) -> Float[Array, "rows outer"]:
    """Rows of no group are zero."""
    wide = jnp.promote_types(rows.dtype, jnp.float32)
    last = jnp.cumsum(sizes)
    number = jnp.arange(rows.shape[0])
    of_group = (number >= (last - sizes)[:, None]) & (number < last[:, None])
    # Else 0 · NaN of a row of no group would be in the gradient of every kernel.
    real = jnp.where(number[:, None] < last[-1], rows.astype(wide), 0)
    product = jnp.einsum("ri,gio->gro", real, kernels.astype(wide), precision=jax.lax.Precision.HIGHEST)
    return jnp.sum(jnp.where(of_group[..., None], product, 0), axis=0).astype(rows.dtype)
