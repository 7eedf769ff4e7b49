"""Runs a test's case with the Triton kernels in Triton's interpreter (tests/kernels/triton_in_numpy.py)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from triton_in_numpy import interpreted, interpreter, main, written

from mjx.kernels.selective_scan import implementations, selective_scan, triton
from mjx.kernels.selective_scan.triton import Block, KernelConfig

CONFIG = KernelConfig(time=16, forward=Block(4, 4), backward=Block(8, 4))


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
    # What stands for something absent has one element.
    times = {int(time) for counts in written.values() if counts.size > 1 for time in np.unique(counts)}
    return {"results": found, "written": times}


if __name__ == "__main__":
    main(evaluate)
