"""Mosaic's kernels as machine code: it runs ptxas by itself, so what it dumps is what can be read."""

import os
import re
from pathlib import Path

import jax
from jax.sharding import SingleDeviceSharding

from mjx.plan.compiled_kernels import CompiledKernel, assemble
from mjx.plan.gpu import device_of, lowering_for


def compile_mosaic(function, *shapes, gpu: str, folder: Path) -> list[CompiledKernel]:
    """The Mosaic kernels of a program; `folder` must be empty."""
    where = SingleDeviceSharding(device_of(gpu))
    placed = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where) for x in shapes]
    os.environ["MOSAIC_GPU_DUMP_TO"] = str(folder)
    try:
        with lowering_for(gpu):
            jax.jit(function).trace(*placed).lower(lowering_platforms=("cuda",)).compile()
    finally:
        del os.environ["MOSAIC_GPU_DUMP_TO"]
    found = []
    for ptx in sorted(folder.glob("*.ptx")):
        # Python and C++ number the kernels each for itself; jax 0.10 does not say what memory they take.
        resources = "".join(
            file.read_text() for file in folder.glob(f"{ptx.stem.rstrip('0123456789')}*.resources.txt")
        )
        shared = re.search(r"smem_scratch_bytes=(\d+)", resources)
        found += assemble(ptx.read_text(), "sm_90a", int(shared[1]) if shared else 0)
    return found
