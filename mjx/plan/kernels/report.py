"""The shipped kernels, compiled for GPUs that are not here and held against a golden report."""

import dataclasses
import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax

import mjx.kernels
from mjx.gpus.data_sheet import data_sheet
from mjx.gpus.toolkit import toolkit
from mjx.kernels.shipped import Shipped, ShippedAssemblies, ShippedProgram
from mjx.models.backends import PACKAGES
from mjx.plan.kernels.machine_code import CompiledKernel, assemble, compile_kernels
from mjx.plan.kernels.mosaic import compile_mosaic_kernels

GOLDEN = Path(mjx.kernels.__file__).parent / "report.json"
SLACK = 0.25
"""By how much instructions may grow under other compilers than the golden report's."""

Figures = dict[str, Any]
"""Of one kernel, as JSON has them."""


@dataclasses.dataclass(frozen=True)
class Target:
    """One shipped program and one GPU that it is compiled for."""

    op: str
    implementation: str
    program: Shipped
    gpu: str

    @property
    def key(self) -> str:
        """What the report calls it."""
        return key(self.op, self.implementation, self.program.configuration, self.gpu)


def key(op: str, implementation: str, configuration: str, gpu: str) -> str:
    """What the report calls a program for a GPU."""
    return " / ".join((op, implementation, configuration, gpu))


def targets() -> Iterator[Target]:
    """All that is shipped."""
    for op, package in PACKAGES.items():
        if find_spec(f"mjx.kernels.{package}.shipped") is None:
            continue
        for implementation, programs in import_module(f"mjx.kernels.{package}.shipped").PROGRAMS.items():
            for program in programs():
                for gpu in program.gpus:
                    yield Target(op, implementation, program, gpu)


def compiled(target: Target) -> dict[str, Figures]:
    """Kernel → its figures.

    Raises:
        InputError: no compiler is installed.
        jax.errors.JaxRuntimeError: it does not compile.
    """
    program, sheet = target.program, data_sheet(target.gpu)
    if isinstance(program, ShippedProgram):
        compiler = compile_mosaic_kernels if program.mosaic else compile_kernels
        kernels = [
            kernel
            for kernel in compiler(program.function, *program.arguments, gpu=target.gpu)
            if kernel.name.startswith(program.kernels)
        ]
    elif isinstance(program, ShippedAssemblies):
        kernels = [
            kernel
            for made in program.assemblies(sheet.compute_capability)
            for kernel in assemble(made.ptx, sheet.architecture, made.shared_memory)
        ]
    else:
        raise TypeError(f"{target.key}: {type(program).__name__} says nothing that can be compiled")
    return {kernel.name: figures(kernel, target.gpu) for kernel in sorted(kernels, key=lambda k: k.name)}


def figures(kernel: CompiledKernel, gpu: str) -> Figures:
    """As the report has them, with the blocks that a multiprocessor will run at once."""
    blocks = data_sheet(gpu).resident_blocks(
        threads=kernel.threads, registers=kernel.registers, shared_memory=kernel.shared_memory
    )
    return {
        "threads": kernel.threads,
        "registers": kernel.registers,
        "spilled": kernel.spilled,
        "shared_memory": kernel.shared_memory,
        "resident_blocks": blocks,
        "instructions": kernel.instructions,
        "tensor_core": kernel.tensor_core,
        "serialized": any("serialized" in warning for warning in kernel.warnings),
    }


def faults(kernel: str, found: Figures, gpu: str, program: Shipped) -> list[str]:
    """What makes a kernel unfit to be shipped, in sentences."""
    sheet, said = data_sheet(gpu), []
    if program.tensor_cores and sheet.tensor_core_instruction not in found["tensor_core"]:
        said.append(f"{kernel} multiplies matrices without {sheet.tensor_core_instruction} on {gpu}")
    if found["spilled"]:
        said.append(f"{kernel} spills {found['spilled']} bytes of registers on {gpu}")
    if not found["resident_blocks"]:
        said.append(f"{kernel} does not fit on a multiprocessor of {gpu}: {found}")
    if found["serialized"] and kernel.startswith(program.forward):
        said.append(f"{kernel}: ptxas serialised its wgmma instructions on {sheet.architecture}")
    return said


def golden() -> dict[str, Any]:
    """The report in the tree."""
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


def differences(kernel: str, found: Figures, expected: Figures, *, same_compiler: bool) -> list[str]:
    """How a kernel got worse than the golden report, or with its compiler became another, in sentences."""
    said = []
    exact = ("threads", "registers", "instructions", "shared_memory") if same_compiler else ("threads",)
    for name in exact:
        if found[name] != expected[name]:
            said.append(f"{kernel}: {name} = {found[name]}, in the report {expected[name]}")
    if not same_compiler and found["instructions"] > (1 + SLACK) * expected["instructions"]:
        said.append(
            f"{kernel} has {found['instructions']} instructions, in the report {expected['instructions']}"
        )
    if same_compiler and found["resident_blocks"] < expected["resident_blocks"]:
        said.append(
            f"{found['resident_blocks']} blocks of {kernel} fit on a multiprocessor, in the report "
            f"{expected['resident_blocks']}"
        )
    if found["tensor_core"].keys() != expected["tensor_core"].keys():
        said.append(f"{kernel} uses {found['tensor_core']}, the report {expected['tensor_core']}")
    return said


def report(kernels: Iterable[tuple[Target, dict[str, Figures]]]) -> dict[str, Any]:
    """The whole report, of this version of the compiler."""
    return {"compilers": compilers(), "kernels": {target.key: found for target, found in kernels}}


def compilers() -> dict[str, str]:
    """What decides over machine code, with versions."""
    said = subprocess.run(
        [toolkit().ptxas, "--version"], capture_output=True, encoding="utf-8", check=True
    ).stdout
    found = {"jax": jax.__version__, "ptxas": re.findall(r"V([\d.]+)", said)[0]}
    if find_spec("triton") is not None:
        found["triton"] = version("triton")
    return found


def to_json(whole: dict[str, Any]) -> str:
    """A line for each kernel, so that a change shows as one."""
    lines = [f'{{"compilers": {json.dumps(whole["compilers"])}, "kernels": {{']
    programs = []
    for key, kernels in whole["kernels"].items():
        inner = ",\n".join(f"  {json.dumps(name)}: {json.dumps(found)}" for name, found in kernels.items())
        programs.append(f" {json.dumps(key)}: {{\n{inner}}}")
    return "\n".join([*lines, ",\n".join(programs), "}}", ""])
