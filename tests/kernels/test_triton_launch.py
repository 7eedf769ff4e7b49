"""Launching Triton kernels asks for Triton only where one is launched, and says how to get it."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from mjx.errors import InputError
from mjx.kernels import triton_launch
from mjx.kernels.grouped_matmul import shipped


def test_without_triton_a_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax_triton", None)
    triton_launch._jax_triton.cache_clear()
    with pytest.raises(InputError, match=r"pip install 'mjx\[triton\]'"):
        jax.eval_shape(shipped.program(triton_launch.launch_on_gpu), *shipped.arguments("bfloat16"))
    triton_launch._jax_triton.cache_clear()


def test_importing_an_op_imports_no_triton():
    code = (
        "import sys, mjx.kernels.grouped_matmul.triton, mjx.kernels.selective_scan.triton\n"
        "print({'triton', 'jax_triton'} & {*sys.modules})"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
    )
    assert done.stdout.strip() == "set()"


def test_the_launches_of_a_program_are_had_without_running_any():
    launches = triton_launch.launches_of(shipped.program, *shipped.arguments("bfloat16"))
    assert [launch.name for launch in launches] == [
        *("forward_kernel", "rows_gradient_kernel", "kernels_gradient_kernel")
    ]
    assert launches[2].outputs["out"] == jax.ShapeDtypeStruct((8, *shipped.EVEN), jnp.bfloat16)
