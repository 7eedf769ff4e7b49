"""Mosaic's kernels as machine code.

Mosaic GPU runs ptxas by itself when XLA instantiates its custom call, so that what it dumps is what is read.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax

from mjx.gpus.data_sheet import data_sheet
from mjx.plan.kernels.machine_code import CompiledKernel, assemble


def compile_mosaic_kernels(program: jax.stages.Lowered, gpu: str) -> list[CompiledKernel]:
    """Compile a program for the GPU that it was lowered for; its Mosaic kernels.

    Raises:
        InputError: no compiler is installed.
        jax.errors.JaxRuntimeError: the program does not compile.
    """
    found = []
    with tempfile.TemporaryDirectory() as name, _dumping_to(name):
        program.compile()
        for ptx in sorted(Path(name).glob("*.ptx")):
            # What is asked for when it is launched stands in MLIR alone.
            passes = ptx.with_suffix(".mlir-passes.log").read_text(encoding="utf-8")
            shared = re.search(r"dynamic_shared_memory_size %c(\d+)_i32", passes)
            if shared is None:
                raise ValueError(f"this jax's Mosaic does not say the shared memory of {ptx.stem}")
            found += assemble(ptx.read_text(encoding="utf-8"), data_sheet(gpu).architecture, int(shared[1]))
    return found


@contextlib.contextmanager
def _dumping_to(folder: str) -> Iterator[None]:
    before = os.environ.get("MOSAIC_GPU_DUMP_TO")
    os.environ["MOSAIC_GPU_DUMP_TO"] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["MOSAIC_GPU_DUMP_TO"]
        else:
            os.environ["MOSAIC_GPU_DUMP_TO"] = before
