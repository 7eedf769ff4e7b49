"""Triton kernels in Triton's interpreter, on NumPy's arrays, in a process that conftest.py starts.

The interpreter is meant for torch's tensors: here NumPy arrays have the methods that it uses. A driver
imports this before Triton.
"""

import os

os.environ["TRITON_INTERPRET"] = "1"  # before any kernel is defined, Triton's own too
os.environ["JAX_PLATFORMS"] = "cpu"

import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import triton.language as tl
from triton.runtime import interpreter

from mjx.kernels.triton_launch import _TRITON_TYPES, Launch

written: dict[str, np.ndarray] = {}
"""Kernel and output → how often each element was written when it ran last."""


class Tensor:
    """As much of torch's as the interpreter asks for."""

    def __init__(self, array: np.ndarray):
        self.array, self.dtype = array, _TRITON_TYPES[array.dtype.name]

    def data_ptr(self):
        return self.array.ctypes.data

    def untyped_storage(self):
        return self

    def cpu(self):
        return self

    def new_empty(self, *_, **__):
        return self

    def set_(self, *_):
        return self

    def storage_offset(self):
        return 0

    def size(self):
        return self.array.shape

    def stride(self):
        return self.array.strides

    def copy_(self, _):
        return self


def run(launch: Launch, *inputs: np.ndarray) -> list[np.ndarray]:
    """Outputs begin as NaN, and nothing else is written."""
    inputs = [np.ascontiguousarray(array) for array in inputs]
    outputs = {name: np.full(x.shape, np.nan, x.dtype) for name, x in launch.outputs.items()}
    stored = [np.zeros(0, np.uint64)]
    original = interpreter.InterpreterBuilder.create_masked_store

    def store(self, pointers, value, mask, *rest):
        stored.append(np.broadcast_to(pointers.data, mask.data.shape)[mask.data.astype(bool)].ravel())
        return original(self, pointers, value, mask, *rest)

    interpreter.InterpreterBuilder.create_masked_store = store
    try:
        tensors = [Tensor(array) for array in (*inputs, *outputs.values())]
        launch.load()[launch.grid](*tensors, **launch.constants)
    finally:
        interpreter.InterpreterBuilder.create_masked_store = original
    addresses = np.concatenate(stored)
    for name, x in outputs.items():
        first = np.uint64(x.ctypes.data)
        own = (addresses >= first) & (addresses < first + np.uint64(x.nbytes))
        places = (addresses[own] - first) // np.uint64(x.itemsize)
        written[f"{launch.name}: {name}"] = np.bincount(places.astype(int), minlength=x.size).reshape(x.shape)
        addresses = addresses[~own]
    assert not addresses.size
    return list(outputs.values())


def interpreted(launch: Launch) -> dict:
    results = jax.pure_callback(
        lambda *inputs: run(launch, *map(np.asarray, inputs)),
        list(launch.outputs.values()),
        *launch.inputs.values(),
    )
    return dict(zip(launch.outputs, results, strict=True))


def truncate(self, source, kind):
    """GPUs round to bfloat16 to the nearest (cvt.rn in the PTX), where the interpreter drops bits."""
    if kind.scalar == tl.bfloat16 and source.dtype.scalar == tl.float32:
        return interpreter.TensorHandle(source.data.astype(jnp.bfloat16).view(np.uint16), tl.bfloat16)
    return self.cast_impl(source, kind)


def dot(self, a, b, total, *_):
    """The interpreter's own multiplies the bits of bfloat16 as integers."""
    a, b = (x.data.view(jnp.bfloat16) if x.dtype.scalar == tl.bfloat16 else x.data for x in (a, b))
    product = np.matmul(a.astype(np.float32), b.astype(np.float32))
    return interpreter.TensorHandle(product + total.data, total.dtype.scalar)


interpreter.InterpreterBuilder.create_fp_trunc = truncate
interpreter.InterpreterBuilder.create_dot = dot


def main(evaluate: Callable[..., dict]) -> None:
    """python DRIVER CASES.pickle RESULTS.pickle"""
    jax.config.update("jax_disable_most_optimizations", True)
    source, target = map(Path, sys.argv[1:])
    cases = pickle.loads(source.read_bytes())
    target.write_bytes(pickle.dumps({name: evaluate(**case) for name, case in cases.items()}))
