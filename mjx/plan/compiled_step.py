"""The training step of a recipe, compiled for GPUs that are not here, or by XLA's CPU backend instead."""

import dataclasses
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from mjx.config import RunConfig
from mjx.errors import InputError
from mjx.gpus.absent_cudnn import cudnn_of
from mjx.gpus.target import specification
from mjx.gpus.toolkit import INSTALL, with_assembler
from mjx.plan.program.hlo import Program, parse_program
from mjx.plan.request import PlanRequest
from mjx.run.loop import build_trainer
from mjx.sharding import build_mesh
from mjx.training.trainer import Trainer

XLA_SHARE = 0.8
"""Of a GPU's memory, what XLA schedules for where it is not told a limit (GetSchedulerMemoryLimit)."""

NOTHING_ASSEMBLED = ': > "$3"\n'
"""A ptxas that leaves its result empty: nothing runs here, machine code changes no buffer and no message, and
assembling a step's hundred kernels would take half of the compiler's time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompiledStep:
    """What the compiler said."""

    trainer: Trainer
    program: Program
    argument_bytes: int
    output_bytes: int
    alias_bytes: int
    """Of the outputs, what lies in the place of arguments."""
    temporary_bytes: int
    buffer_assignment: str | None
    """XLA's reports of where values lie and when they live; None from the CPU backend."""
    live_ranges: str | None
    lowering_seconds: float
    compiling_seconds: float


def compile_step(config: RunConfig, request: PlanRequest, pool: float) -> CompiledStep:
    """The very step of `mjx train`, with shapes in place of arrays; nothing is allocated.

    Of the ways to multiply matrices that the request names, what is returned is the program that takes more
    memory. `pool` is the memory that XLA may plan with, in bytes.

    Raises:
        InputError: the recipe does not fit the mesh, or there is no compiler here.
    """
    if request.compiler == "cpu":
        return _by_cpu(config, request)
    topology = _topology(request, pool)
    trainer = build_trainer(config, build_mesh(config.mesh, topology.devices))
    start = time.perf_counter()
    with trainer.on_mesh(), cudnn_of(request.sheet.compute_capability):
        lowered = trainer.train_step.lower(trainer.layout.abstract, trainer.batch_layout.abstract)
    lowered_at = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mjx-plan-") as folder:
        cuda = with_assembler(Path(folder), NOTHING_ASSEMBLED)
        options = {"xla_gpu_cuda_data_dir": str(cuda.root)}
        steps = [
            _compiled(trainer, lowered, options | {"xla_gpu_enable_triton_gemm": by == "triton"})
            for by in ("triton", "cublas")
            if request.products in (by, "both")
        ]
    larger = max(steps, key=lambda step: step.temporary_bytes)
    done = time.perf_counter()
    return dataclasses.replace(
        larger, lowering_seconds=lowered_at - start, compiling_seconds=done - lowered_at
    )


def _topology(request: PlanRequest, pool: float) -> Any:
    from jax.experimental import topologies

    text, replaced = re.subn(
        r"device_memory_size: \d+",
        f"device_memory_size: {int(pool / XLA_SHARE)}",
        specification(request.gpu),
    )
    assert replaced == 1
    try:
        return topologies.get_topology_desc(
            platform="cuda",
            topology_name="",
            target_config=text,
            # A partition is a domain of NVLink: a node.
            topology=f"{request.nodes}x1x{request.per_node}",
        )
    except (RuntimeError, NotImplementedError) as error:
        raise InputError(f"XLA cannot compile for GPUs here ({error}): {INSTALL}") from error


def _compiled(trainer: Trainer, lowered: Any, options: dict[str, Any]) -> CompiledStep:
    with tempfile.TemporaryDirectory(prefix="mjx-plan-") as folder:
        compiled = lowered.compile(compiler_options=options | {"xla_dump_to": folder})
        reports = {name: _report(Path(folder), name) for name in ("buffer-assignment", "live-range")}
    return _step(trainer, compiled, compiled.as_text(), reports["buffer-assignment"], reports["live-range"])


def _report(folder: Path, name: str) -> str:
    (path,) = [path for path in folder.glob(f"*-{name}.txt") if "jit_step" in path.name]
    return path.read_text(encoding="utf-8")


def _step(
    trainer: Trainer, compiled: Any, text: str, assignment: str | None, ranges: str | None
) -> CompiledStep:
    memory = compiled.memory_analysis()
    return CompiledStep(
        trainer=trainer,
        program=parse_program(text),
        argument_bytes=memory.argument_size_in_bytes,
        output_bytes=memory.output_size_in_bytes,
        alias_bytes=memory.alias_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        buffer_assignment=assignment,
        live_ranges=ranges,
        lowering_seconds=0.0,
        compiling_seconds=0.0,
    )


def _by_cpu(config: RunConfig, request: PlanRequest) -> CompiledStep:
    """Its partitioned program, as it is before the CPU's own passes; those know no bfloat16 on the wire."""
    trainer = build_trainer(config, build_mesh(config.mesh, jax.devices("cpu")[: request.devices]))
    start = time.perf_counter()
    with trainer.on_mesh():
        lowered = trainer.train_step.lower(trainer.layout.abstract, trainer.batch_layout.abstract)
    lowered_at = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mjx-plan-") as folder:
        compiled = lowered.compile(
            compiler_options={"xla_dump_to": folder, "xla_dump_hlo_pass_re": "spmd-partitioning"}
        )
        found = sorted(Path(folder).glob("*jit_step*after_spmd-partitioning*.txt"))
        # On one device nothing is partitioned.
        text = found[0].read_text(encoding="utf-8") if found else compiled.as_text()
    done = time.perf_counter()
    return dataclasses.replace(
        _step(trainer, compiled, text, None, None),
        lowering_seconds=lowered_at - start,
        compiling_seconds=done - lowered_at,
    )
