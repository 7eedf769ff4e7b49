"""Runs a test's case with the Triton kernels in Triton's interpreter (tests/kernels/triton_in_numpy.py)."""

import dataclasses
import functools

import grouped_matmul_cases
import jax
import numpy as np
from triton_in_numpy import interpreted, main, run, written

from mjx.kernels.grouped_matmul import implementations, triton
from mjx.kernels.grouped_matmul.configurations import KernelConfig, Tile
from mjx.kernels.triton_launch import launches_of

TILE = Tile(32, 16, 32, 4, 1)
CONFIG = KernelConfig(TILE, TILE, TILE, panel=2)
unpatched = triton.grouped_matmul
triton.grouped_matmul = functools.partial(unpatched, config=CONFIG, launch=interpreted)
row = implementations.IMPLEMENTATIONS["triton"]
implementations.IMPLEMENTATIONS["triton"] = dataclasses.replace(row, platforms=("cpu",))


def evaluate(groups: int | None = None, **given) -> dict:
    if groups is not None:
        return far(groups)
    written.clear()
    results = grouped_matmul_cases.evaluate(**given, implementation="triton")
    return {"results": jax.tree.map(np.asarray, results), "written": dict(written)}


def far(groups: int) -> dict:
    """Of so many groups the last alone has rows: the others' kernels are memory that nobody touches."""
    size, half = TILE.rows, np.float16
    random = np.random.RandomState(0)
    kernels = np.zeros((groups, 128, 128), half)
    kernels[-1] = random.randn(128, 128)
    rows = random.randn(size, 128).astype(half)
    ends = [np.array([stop], np.int32) for stop in (groups - 1, 0, size)]
    found = {}
    for name, product in (("forward_kernel", np.matmul), ("rows_gradient_kernel", lambda a, b: a @ b.T)):
        launch = next(launch for launch in LAUNCHES if launch.name == name)
        (out,) = run(launch, rows, kernels, *ends)
        found[name] = out, product(rows.astype(np.float32), kernels[-1].astype(np.float32))
    return found


def forward_and_backward(launch):
    def run(rows, kernels, sizes):
        forward = functools.partial(unpatched, config=CONFIG, launch=launch)
        out, transpose = jax.vjp(lambda rows: forward(rows, kernels, sizes), rows)
        return transpose(out)

    return run


LAUNCHES = launches_of(
    forward_and_backward,
    jax.ShapeDtypeStruct((TILE.rows, 128), "float16"),
    jax.ShapeDtypeStruct((1, 128, 128), "float16"),
    jax.ShapeDtypeStruct((1,), "int32"),
)
"""Of one block, whose arrays say which group is its own."""

if __name__ == "__main__":
    main(evaluate)
