"""The Triton kernels of grouped matmul: in Triton's interpreter, and lowered for GPUs."""

import functools
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest
from grouped_matmul_cases import CASES, HALF, ROUNDED, assert_right
from jax.sharding import PartitionSpec as P

from mjx.kernels import call
from mjx.kernels.grouped_matmul import grouped_matmul, shipped, triton
from mjx.kernels.grouped_matmul.configurations import CONFIGS, configs
from mjx.kernels.triton_launch import launch_on_gpu

DRIVER = Path(__file__).with_name("triton_interpreter.py")
FAR = 2**17 + 1
"""Groups of 2¹⁴ elements: the last begins behind 2³¹."""


@pytest.fixture(scope="module")
def interpreted(in_triton_s_interpreter):
    """What the kernels made of the cases."""
    return in_triton_s_interpreter(DRIVER, CASES | HALF | {"far": {"groups": FAR}})


@pytest.mark.parametrize("name", CASES)
def test_the_kernels_are_right_with_both_gradients(interpreted, name):
    assert_right(interpreted[name]["results"], CASES[name])


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_is_rounded_once(interpreted, dtype):
    assert_right(interpreted[dtype]["results"], HALF[dtype], ROUNDED[dtype])


@pytest.mark.parametrize("name", CASES)
def test_every_element_of_a_row_of_some_group_is_written_once_and_no_other_row(interpreted, name):
    """By all programs together: there is nothing that two could race for."""
    written = interpreted[name]["written"]
    rows = CASES[name]["sizes"].sum()
    assert (written.pop("kernels_gradient_kernel: out") == 1).all()
    assert written.keys() == {"forward_kernel: out", "rows_gradient_kernel: out"}
    for times in written.values():
        assert (times[:rows] == 1).all()
        assert (times[rows:] == 0).all()


def test_kernels_may_have_more_elements_than_32_bits_can_count(interpreted):
    for name, (result, expected) in interpreted["far"].items():
        np.testing.assert_allclose(result, expected, rtol=2**-11, atol=1e-3, err_msg=name)


def test_a_configuration_is_there_for_every_gpu():
    for gpu, architecture in ((None, "ampere"), (8.6, "ampere"), (9.0, "hopper"), (12.0, "ampere")):
        for dtype, size in (("bfloat16", 2), ("float16", 2), ("float32", 4)):
            assert configs(dtype, gpu) is CONFIGS[architecture, size]


def test_forward_and_backward_lower_for_gpus_inside_of_a_mesh(monkeypatch):
    pytest.importorskip("triton")
    pytest.importorskip("jax_triton")
    pytest.importorskip("jax_cuda13_plugin")
    launcher = functools.partial(launch_on_gpu, compute_capability=90)
    kernel = functools.partial(triton.grouped_matmul, launch=launcher, config=CONFIGS["hopper", 2][0])
    monkeypatch.setattr(triton, "grouped_matmul", kernel)
    monkeypatch.setattr(call, "current_device", lambda: ("gpu", 9.0))
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    product = functools.partial(grouped_matmul, implementation="triton")
    each = {"mesh": mesh, "in_specs": (P("data"), P(), P("data")), "out_specs": P("data")}
    product = jax.shard_map(product, **each)

    def run(rows, kernels, sizes, d_out):
        out, transpose = jax.vjp(lambda rows, kernels: product(rows, kernels, sizes), rows, kernels)
        return out, transpose(d_out)

    rows, kernels, sizes, d_out = shipped.arguments("bfloat16")
    sizes = jax.ShapeDtypeStruct((2 * sizes.shape[0],), sizes.dtype)
    embedded, compress = [], zlib.compress
    monkeypatch.setattr(zlib, "compress", lambda call: embedded.append(call) or compress(call))
    lowered = jax.jit(run).trace(rows, kernels, sizes, d_out).lower(lowering_platforms=("cuda",))
    text = lowered.as_text()
    assert text.count("custom_call @triton_kernel_call") == 3
    assert text.count("stablehlo.all_reduce") == 1, "the gradient of kernels, over the mesh"
    assert "stablehlo.transpose" not in text, "kernels are read as they stand"
    embedded = [program for program in embedded if b".target" in program]  # others go into a cache
    assert len(embedded) == 3
    for program in embedded:
        assert b".version 8.7" in program, "the PTX that drivers of CUDA 12.8 and later read"
        assert b".target sm_90" in program
