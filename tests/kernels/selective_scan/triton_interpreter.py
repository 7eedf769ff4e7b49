"""Runs a test's case with the Triton kernels in Triton's interpreter, which only a process of its own can.

    python triton_interpreter.py CASES.pickle RESULTS.pickle

The interpreter is meant for torch's tensors: here NumPy arrays have the methods that it uses.
"""

import os

os.environ["TRITON_INTERPRET"] = "1"  # before any kernel is defined, Triton's own too
os.environ["JAX_PLATFORMS"] = "cpu"

import dataclasses
import functools
import pickle
import sys
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import triton.language as tl
from triton.runtime import interpreter

from mjx.kernels.selective_scan import implementations, selective_scan, triton
from mjx.kernels.selective_scan.launch import _TRITON_TYPES, Launch
from mjx.kernels.selective_scan.triton import Block, KernelConfig

CONFIG = KernelConfig(time=16, forward=Block(4, 4), backward=Block(8, 4))
written: Counter = Counter()
"""Of the last case: how often an element was written → how many elements were."""


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
    """Outputs begin as NaN; each element must be written once, except of what stands for something absent."""
    inputs = [np.ascontiguousarray(array) for array in inputs]
    outputs = {name: np.full(x.shape, np.nan, x.dtype) for name, x in launch.outputs.items()}
    stored = []
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
    addresses, times = np.unique(np.concatenate(stored), return_counts=True)
    expected = [
        x.ctypes.data + np.arange(x.size, dtype=np.uint64) * x.itemsize
        for x in outputs.values()
        if x.size > 1
    ]
    np.testing.assert_array_equal(addresses, np.sort(np.concatenate(expected)))
    written.update(times.tolist())
    return list(outputs.values())


def interpreted(launch: Launch) -> dict:
    results = jax.pure_callback(
        lambda *inputs: run(launch, *map(np.asarray, inputs)),
        list(launch.outputs.values()),
        *launch.inputs.values(),
    )
    return dict(zip(launch.outputs, results, strict=True))


def scan(self, inputs):
    """In as many steps as the length has bits (Hillis and Steele 1986): the interpreter's own takes one
    element after the other, in Python."""
    length = inputs[0].handle.data.shape[self.axis]
    out = [np.array(x.handle.data) for x in inputs]
    for distance in (1 << bit for bit in range((length - 1).bit_length())):
        # Whole arrays: a length that is no power of two is none to Triton. Those without a past stay.
        results = joined(self, inputs, [np.roll(x, distance, self.axis) for x in out], out)
        rest = (*(slice(None),) * self.axis, slice(distance, None))
        for x, result in zip(out, results, strict=True):
            x[rest] = result[rest]
    return [self.to_tensor(x, y.dtype) for x, y in zip(out, inputs, strict=True)]


def reduce(self, inputs):
    """One half to the other, until there is one element."""
    out = [x.handle.data for x in inputs]
    while out[0].shape[self.axis] > 1:
        out = joined(self, inputs, *zip(*(np.split(x, 2, self.axis) for x in out), strict=True))
    out = out if self.keep_dims else [np.squeeze(x, self.axis) for x in out]
    return [self.to_tensor(x, y.dtype) for x, y in zip(out, inputs, strict=True)]


def joined(self, inputs, before, after) -> list[np.ndarray]:
    """What the kernel's function makes of two arrays for each input."""
    tensors = (
        self.to_tensor(x, y.dtype) for arrays in (before, after) for x, y in zip(arrays, inputs, strict=True)
    )
    results = self.combine_fn.fn(*tensors)
    return [x.handle.data for x in (results if isinstance(results, tuple) else (results,))]


def truncate(self, source, kind):
    """GPUs round to bfloat16 to the nearest (cvt.rn in the PTX), where the interpreter drops bits."""
    if kind.scalar == tl.bfloat16 and source.dtype.scalar == tl.float32:
        return interpreter.TensorHandle(source.data.astype(jnp.bfloat16).view(np.uint16), tl.bfloat16)
    return self.cast_impl(source, kind)


interpreter.InterpreterBuilder.create_fp_trunc = truncate
interpreter.ScanOps.generic_scan = scan
interpreter.ReduceOps.generic_reduce = reduce
triton.selective_scan = functools.partial(triton.selective_scan, config=CONFIG, launch=interpreted)
row = implementations.IMPLEMENTATIONS["triton"]
implementations.IMPLEMENTATIONS["triton"] = dataclasses.replace(row, platforms=("cpu",))


def evaluate(arrays: dict, options: dict, weights: dict) -> dict:
    """Output, final state, and the gradients of their weighted sum."""

    def total(arrays):
        y, state = selective_scan(**arrays, **options, return_final_state=True, implementation="triton")
        loss = jnp.sum(y.astype(jnp.float32) * weights["y"]) + jnp.sum(state * weights["state"])
        return loss, {"y": y, "state": state}

    written.clear()
    gradients, out = jax.jit(jax.grad(total, has_aux=True))(arrays)
    gradients = {f"gradient of {name}": gradient for name, gradient in gradients.items()}
    found = {name: np.asarray(x) for name, x in {**out, **gradients}.items()}
    return {"results": found, "written": dict(written)}


if __name__ == "__main__":
    jax.config.update("jax_disable_most_optimizations", True)
    source, target = map(Path, sys.argv[1:])
    cases = pickle.loads(source.read_bytes())
    results = {name: evaluate(**case) for name, case in cases.items()}
    target.write_bytes(pickle.dumps(results))
