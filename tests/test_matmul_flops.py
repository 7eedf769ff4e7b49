import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from matmul_flops import matmul_flops


def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_a_matrix_product_is_two_flops_per_multiply_add():
    assert matmul_flops(lambda x, w: jnp.tanh(x @ w), array(3, 5), array(5, 7)) == 2 * 3 * 5 * 7
    attention = functools.partial(jnp.einsum, "bqhd,bkhd->bhqk")
    assert matmul_flops(attention, array(2, 4, 3, 8), array(2, 6, 3, 8)) == 2 * 2 * 3 * 4 * 6 * 8


def test_a_scanned_stack_counts_every_layer_and_rematerialised_ones_once():
    def model(x, layers):
        return jax.lax.scan(lambda x, w: (jax.checkpoint(jnp.matmul)(x, w), None), x, layers)[0]

    assert matmul_flops(jax.jit(model), array(3, 8), array(12, 8, 8)) == 12 * 2 * 3 * 8 * 8


def test_a_function_with_its_own_gradient_counts_its_forward_once():
    @jax.custom_vjp
    def product(x, w):
        return x @ w

    product.defvjp(lambda x, w: (x @ w, (x, w)), lambda saved, g: (g @ saved[1].T, saved[0].T @ g))
    assert matmul_flops(product, array(3, 5), array(5, 7)) == 2 * 3 * 5 * 7
    gradient = jax.grad(lambda x, w: product(x, w).sum(), argnums=(0, 1))
    assert matmul_flops(gradient, array(3, 5), array(5, 7)) == 3 * 2 * 3 * 5 * 7


def test_grouped_products_count_one_matrix_per_row():
    sizes = jax.ShapeDtypeStruct((4,), jnp.int32)
    assert matmul_flops(jax.lax.ragged_dot, array(16, 5), array(4, 5, 7), sizes) == 2 * 16 * 5 * 7


@pytest.mark.parametrize("groups", [1, 8])
def test_convolutions_count_their_taps(groups):
    convolve = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=(1,),
        padding="SAME",
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=groups,
    )
    kernel = array(4, 8 // groups, 8)
    assert matmul_flops(convolve, array(2, 10, 8), kernel) == 2 * (2 * 10 * 8) * (4 * 8 // groups)


def test_one_branch_of_a_conditional_counts():
    def f(flag, x):
        return jax.lax.cond(flag, lambda x: x @ x @ x, lambda x: x @ x, x)

    assert matmul_flops(f, jax.ShapeDtypeStruct((), bool), array(4, 4)) == 2 * (2 * 64)


def test_work_inside_shard_map_counts_on_all_devices():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    f = jax.shard_map(lambda x, w: x @ w, mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data"))
    assert matmul_flops(f, array(4, 5), array(5, 7)) == 2 * 4 * 5 * 7
    abstract = jax.sharding.AbstractMesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    f = jax.shard_map(lambda x, w: x @ w, mesh=abstract, in_specs=(P("data"), P()), out_specs=P("data"))
    assert matmul_flops(f, array(4, 5), array(5, 7)) == 2 * 4 * 5 * 7


def test_tracing_needs_no_arrays_and_costs_no_compute():
    assert matmul_flops(jnp.matmul, array(10**5, 10**5), array(10**5, 10**5)) == pytest.approx(2e15)
    assert isinstance(matmul_flops(jnp.tanh, np.zeros(3)), float)
