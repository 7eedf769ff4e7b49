"""Grouped matmul for every device against NumPy, forward and both gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from grouped_matmul_cases import CASES, HALF, ROUNDED, assert_right, case, evaluate, exact
from jax.sharding import PartitionSpec as P

from mjx.errors import InputError
from mjx.kernels.grouped_matmul import grouped_matmul

IMPLEMENTATIONS = ["reference", "xla"]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", CASES)
def test_every_row_meets_the_kernel_of_its_group_and_both_gradients_those_rows_alone(name, implementation):
    assert_right(evaluate(**CASES[name], implementation=implementation), CASES[name])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_is_rounded_once(dtype, implementation):
    assert_right(evaluate(**HALF[dtype], implementation=implementation), HALF[dtype], ROUNDED[dtype])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_float64_stays_float64(implementation):
    with jax.enable_x64(True):
        given = case(30, 0, 63, 65, 2, dtype="float64")
        results = evaluate(**given, implementation=implementation)
        for name, expected in exact(**given).items():
            np.testing.assert_allclose(np.asarray(results[name])[: len(expected)], expected, rtol=1e-12)


def test_only_blocks_that_have_rows_are_computed():
    """The loop ends with them, and no buffer is as large as all groups' products of all rows."""
    given = case(30, 0, 63, 65, 2)
    shapes = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), given)
    text = evaluate.lower(**shapes, implementation="xla").as_text()
    assert text.count("stablehlo.while") == 3
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert len(products) == 3
    assert all("tensor<64x" in line for line in products), "a block at a time"


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_inside_of_a_mesh_the_gradient_of_kernels_that_all_have_is_summed_over_it(implementation):
    halves = [case(10, 0, 7), case(0, 12, 3)]
    given = {name: np.concatenate([half[name] for half in halves]) for name in ("rows", "d_out", "sizes")}
    kernels = halves[0]["kernels"]
    mesh = jax.make_mesh((2, 2), ("data", "other"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    call = functools.partial(grouped_matmul, implementation=implementation)
    call = jax.shard_map(call, mesh=mesh, in_specs=(P("data"), P(), P("data")), out_specs=P("data"))

    @jax.jit
    def gradient(kernels, rows, sizes, d_out):
        return jax.vjp(lambda kernels: call(rows, kernels, sizes), kernels)[1](d_out)[0]

    expected = sum(exact(**{**half, "kernels": kernels})["d_kernels"] for half in halves)
    result = gradient(kernels, given["rows"], given["sizes"], given["d_out"])
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"rows": jnp.zeros((4, 3))},
            r"kernels has shape \(2, 5, 6\) and has to be \[groups, inner = 3, outer",
        ),
        ({"rows": jnp.zeros((2, 4, 5))}, r"rows has shape \(2, 4, 5\) and has to be \[rows, inner\]"),
        ({"sizes": jnp.zeros(3, int)}, r"sizes has shape \(3,\) and has to be \[groups = 2\]"),
        ({"sizes": jnp.zeros(2)}, r"sizes is float32 and has to be an integer type"),
        ({"rows": jnp.zeros((4, 5), "bfloat16")}, r"kernels is float32 and rows is bfloat16"),
        ({"rows": jnp.zeros((4, 5), int)}, r"rows is int32 and has to be a floating type"),
        ({"implementation": "triton"}, r"'triton' cannot do platform cpu \(runs on gpu\); xla and reference"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(change, sentence):
    given = {"rows": jnp.zeros((4, 5)), "kernels": jnp.zeros((2, 5, 6)), "sizes": jnp.array([1, 3])}
    with pytest.raises(InputError, match=f"grouped_matmul: .*{sentence}"):
        grouped_matmul(**(given | change))
