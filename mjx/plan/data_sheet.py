"""What a GPU can do in a second, and what one of its multiprocessors holds: from the data sheet."""

import dataclasses
import functools

from mjx.parse import parse
from mjx.plan.gpu import SPECIFICATIONS, specification
from mjx.trees import read_yaml

RESERVED_SHARED_MEMORY = 1024
"""Bytes of each block that CUDA keeps for itself (CUDA programming guide, compute capability 8.x and 9.x)."""
WARP = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSheet:
    """One kind of GPU. Rates are in operations or bytes a second, sizes are of a multiprocessor."""

    architecture: str
    """As ptxas calls it, "sm_90a"."""
    compute_capability: float
    tensor_core_instruction: str
    """Of SASS, which multiplies matrices at the full rate."""
    tensor_flops: float
    """Of dense matrix products in bfloat16 or float16."""
    vector_flops: float
    """Of float32 outside the tensor cores, an addition and a multiplication counted as two."""
    exps: float
    memory_bandwidth: float
    multiprocessors: int
    registers: int
    shared_memory: int
    """Bytes."""
    threads: int
    blocks: int

    def resident_blocks(self, *, threads: int, registers: int, shared_memory: int) -> int:
        """How many blocks of a kernel a multiprocessor runs at once (CUDA's occupancy calculator).

        `registers` are of a thread, `shared_memory` bytes of a block. Registers are given out to warps in
        units of 256.
        """
        warps = -(-threads // WARP)
        of_warp = -(-registers * WARP // 256) * 256
        by_registers = self.registers // of_warp // warps if of_warp else self.blocks
        by_memory = self.shared_memory // (shared_memory + RESERVED_SHARED_MEMORY)
        return min(by_registers, by_memory, self.threads // (warps * WARP), self.blocks)


@functools.cache
def data_sheet(name: str) -> DataSheet:
    """Of a GPU by its name.

    Raises:
        InputError: a name that is not among `mjx.plan.gpu.gpu_names()`.
    """
    specification(name)  # refuses unknown names
    return parse(DataSheet, read_yaml(SPECIFICATIONS / f"{name}.yaml"), name)
