"""What a GPU can do in a second, holds, and sends to others, and what one of its multiprocessors holds.

From the data sheets: all of it in NAME.yaml beside this file for a GPU that can be compiled for, the rates of
matrix products in peaks.yaml for others.
"""

import dataclasses
import functools
import re

from mjx.gpus.target import SPECIFICATIONS, gpu_names, specification
from mjx.parse import parse
from mjx.trees import Tree, read_yaml

RESERVED_SHARED_MEMORY = 1024
"""Bytes of each block that CUDA keeps for itself (CUDA programming guide, compute capability 8.0 to 10.0)."""
WARP = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Peaks:
    """The rates of one kind of GPU in dense matrix products with float32 accumulation, in FLOP/s."""

    compute_capability: float | None
    """None: not NVIDIA's."""
    tensor_flops: float
    """In bfloat16 or float16."""
    tf32_flops: float | None = None
    """In float32 through TF32, which is what JAX multiplies float32 by; None: it has no such unit."""
    float8_flops: float | None = None
    """None: it has no such unit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSheet(Peaks):
    """One kind of GPU. Rates are in operations or bytes a second.

    From `multiprocessors` on, sizes are of a multiprocessor.
    """

    architecture: str
    """As ptxas calls it, "sm_90a"."""
    compute_capability: float
    tensor_core_instruction: str
    """Of SASS, which multiplies matrices at the full rate."""
    vector_flops: float
    """Of float32 outside the tensor cores, an addition and a multiplication counted as two."""
    exps: float
    memory_bandwidth: float
    memory: int
    """Bytes that CUDA shows (cudaDeviceProp.totalGlobalMem), which is less than what is sold; the
    specification's device_memory_size."""
    nvlink_bandwidth: float
    """Of one GPU to the others of its node, in one direction: half of what data sheets name, which is the sum
    of both."""
    network_bandwidth: float
    """Of one GPU to other nodes, in one direction: its share of a DGX's ports. A cluster may have fewer."""
    gpus_per_node: int
    """That NVLink joins, in HGX and DGX."""
    reserved_memory: int
    """Bytes outside JAX's pool. A reckoning that no GPU has confirmed: some 0.5 GiB for CUDA's context, 1 GiB
    for NCCL's buffers (4 MiB, its NCCL_BUFFSIZE, for each channel and peer: 0.1 to 0.2 GiB for each
    communicator, of which a mesh has several) and 0.5 GiB for loaded kernels."""
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
        InputError: a name that is not among `mjx.gpus.target.gpu_names()`.
    """
    specification(name)  # refuses unknown names
    return parse(DataSheet, _sheet(name), name)


def _sheet(name: str) -> Tree:
    sheet = read_yaml(SPECIFICATIONS / f"{name}.yaml")
    other = sheet.pop("like", None)
    return sheet if other is None else _sheet(other) | sheet


def sheet_name(kind: str) -> str | None:
    """Which data sheet is that of a GPU by what CUDA calls it, "NVIDIA H200"; None where there is none."""
    name = _known_name(kind)
    return name if name in gpu_names() else None


def peaks(kind: str) -> Peaks | None:
    """Of a GPU by what its driver calls it; None for one that is not known."""
    name = _known_name(kind)
    return None if name is None else _peaks(name)


@functools.cache
def _peaks(name: str) -> Peaks:
    if name in gpu_names():
        return data_sheet(name)
    row = dict(_further()[name])
    other = row.pop("like", None)
    rates = (
        {} if other is None else {f.name: getattr(_peaks(other), f.name) for f in dataclasses.fields(Peaks)}
    )
    return parse(Peaks, rates | row, name)


@functools.cache
def _further() -> Tree:
    return read_yaml(SPECIFICATIONS / "peaks.yaml")


@functools.cache
def _known_name(kind: str) -> str | None:
    """The longest name, of a sheet or in peaks.yaml, whose words stand in a row in what a driver says.

    Only whole words count: the B200 in a GB200 has other rates and other memory.
    """
    said = f" {' '.join(_words(kind))} "
    names = [name for name in (*gpu_names(), *_further()) if f" {' '.join(_words(name))} " in said]
    return max(names, key=len, default=None)


def _words(text: str) -> list[str]:
    return re.split(r"[^a-z0-9]+", text.lower())
