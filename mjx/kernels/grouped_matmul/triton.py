"""Grouped matmul as Triton kernels, for GPUs from Ampere on.

Nothing is copied: rows are read where they stand, blocks masked at the end of their group, and the gradient
of rows reads the kernels transposed. Beyond inputs and outputs there are the integers of a block table.
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mjx.kernels.capability import current_device
from mjx.kernels.grouped_matmul.block_table import block_table
from mjx.kernels.grouped_matmul.configurations import KernelConfig, Tile, configs
from mjx.kernels.triton_launch import Launch, Launcher, launch_on_gpu
from mjx.kernels.varying import varying, varying_axes

KERNELS = "mjx.kernels.grouped_matmul.triton_kernels"


def grouped_matmul(
    rows: Float[Array, "rows inner"],
    kernels: Float[Array, "groups inner outer"],
    sizes: Int[Array, " groups"],
    *,
    config: KernelConfig | None = None,
    launch: Launcher = launch_on_gpu,
) -> Float[Array, "rows outer"]:
    """As `reference.grouped_matmul`, but rows of no group are left as found; `launch` runs the kernels.

    Raises:
        InputError: Triton or jax-triton is not installed.
    """
    config = config or configs(rows.dtype, current_device()[1])[0]
    return _product(config, launch, rows, kernels, sizes)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _product(config: KernelConfig, launch: Launcher, rows: Array, kernels: Array, sizes: Array) -> Array:
    return _forward(config, launch, rows, kernels, sizes)[0]


def _forward(config: KernelConfig, launch: Launcher, rows: Array, kernels: Array, sizes: Array):
    call = _of_rows("forward_kernel", "outer", config.forward, config.panel, rows, kernels, sizes)
    return _run(launch, call), (rows, kernels, sizes)


def _backward(config: KernelConfig, launch: Launcher, residuals: tuple[Array, Array, Array], d_out: Array):
    rows, kernels, sizes = residuals
    of_rows = _of_rows("rows_gradient_kernel", "inner", config.rows, config.panel, d_out, kernels, sizes)
    of_kernels = _of_kernels(config.kernels, config.panel, rows, d_out, kernels, sizes)
    return _run(launch, of_rows), _run(launch, of_kernels), None


_product.defvjp(_forward, _backward)


def _of_rows(
    kernel: str,
    axis: Literal["inner", "outer"],
    tile: Tile,
    panel: int,
    rows: Array,
    kernels: Array,
    sizes: Array,
) -> Launch:
    """A product of each row; `axis` of the kernels is what it has then."""
    _, inner, outer = kernels.shape
    made = {"inner": inner, "outer": outer}[axis]
    table = block_table(sizes, rows.shape[0], tile.rows)
    blocks = table.group.shape[0]
    columns = -(-made // {"inner": tile.inner, "outer": tile.outer}[axis])
    return _launch(
        kernel,
        tile,
        programs=blocks * columns,
        inputs={
            "rows": rows,
            "kernels": kernels,
            "group": table.group,
            "start": table.start,
            "stop": table.stop,
        },
        output=jax.ShapeDtypeStruct((rows.shape[0], made), rows.dtype),
        constants={"inner": inner, "outer": outer, "blocks": blocks, "panel": panel},
    )


def _of_kernels(tile: Tile, panel: int, rows: Array, d_out: Array, kernels: Array, sizes: Array) -> Launch:
    groups, inner, outer = kernels.shape
    last = jnp.cumsum(sizes, dtype=jnp.int32)
    return _launch(
        "kernels_gradient_kernel",
        tile,
        programs=groups * -(-inner // tile.inner) * -(-outer // tile.outer),
        inputs={"rows": rows, "d_out": d_out, "first": last - sizes, "last": last},
        output=jax.ShapeDtypeStruct(kernels.shape, kernels.dtype),
        constants={"inner": inner, "outer": outer, "panel": panel},
    )


def _launch(
    kernel: str,
    tile: Tile,
    *,
    programs: int,
    inputs: dict[str, Array],
    output: jax.ShapeDtypeStruct,
    constants: dict[str, int],
) -> Launch:
    blocks = {"block_rows": tile.rows, "block_inner": tile.inner, "block_outer": tile.outer}
    return Launch(
        kernel=f"{KERNELS}:{kernel}",
        grid=(programs,),
        inputs=inputs,
        outputs={"out": output},
        constants={**constants, **blocks},
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )


def _run(launch: Launcher, call: Launch) -> Any:
    return varying(launch(call)["out"], varying_axes(dict(call.inputs)))
