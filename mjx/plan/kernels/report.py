"""The shipped kernels, compiled for GPUs that are not here and held against a golden report."""

import contextlib
import dataclasses
import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax

import mjx.kernels
from mjx.gpus.data_sheet import data_sheet
from mjx.gpus.toolkit import toolkit
from mjx.kernels.shipped import Shipped, ShippedProgram, ShippedSources, Source
from mjx.models.backends import PACKAGES
from mjx.plan.kernels.lowered import fingerprint, lower
from mjx.plan.kernels.machine_code import CompiledKernel, assemble, compile_kernels
from mjx.plan.kernels.mosaic import compile_mosaic_kernels

GOLDEN = Path(mjx.kernels.__file__).parent / "report.json"
PLUGINS = ("jax-cuda12-plugin", "jax-cuda12-pjrt", "jax-cuda13-plugin", "jax-cuda13-pjrt")
"""What has XLA for GPUs, and the compilers of Pallas' kernels."""
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


@dataclasses.dataclass(frozen=True)
class Examined:
    """What the kernels of a target are."""

    target: Target
    lowered: str
    """The fingerprint of what its compiler is given."""
    kernels: dict[str, Figures]
    compiled: bool
    """Now; or else the golden report has the figures of this very program, of these very compilers."""


def examine(
    target: Target, golden: dict[str, Any], versions: dict[str, str], *, anew: bool = False
) -> Examined:
    """Lower a target, and compile it unless the golden report has it, of compilers of the same `versions`.

    `anew`: compile it anyway.

    Raises:
        InputError: no compiler is installed.
        jax.errors.JaxRuntimeError: it does not compile.
    """
    program = lowered(target)
    found = fingerprint(program, target.gpu)
    known = golden["programs"].get(target.key, {})
    if anew or golden["compilers"] != versions or known.get("lowered") != found:
        return Examined(target, found, compiled(target, program), True)
    kernels = {name: told | _resident(told, target.gpu) for name, told in known["kernels"].items()}
    return Examined(target, found, kernels, False)


def lowered(target: Target) -> jax.stages.Lowered | list[Source]:
    """What the compiler of its machine code is given."""
    program = target.program
    if isinstance(program, ShippedProgram):
        return lower(program.function, *program.arguments, gpu=target.gpu)
    if isinstance(program, ShippedSources):
        return program.sources(data_sheet(target.gpu).compute_capability)
    raise TypeError(f"{target.key}: {type(program).__name__} says nothing that can be compiled")


def compiled(target: Target, program: jax.stages.Lowered | list[Source]) -> dict[str, Figures]:
    """Kernel → its figures."""
    shipped, architecture = target.program, data_sheet(target.gpu).architecture
    if isinstance(program, list):
        assemblies = [source.assemble() for source in program]
        made = [k for each in assemblies for k in assemble(each.ptx, architecture, each.shared_memory)]
    else:
        assert isinstance(shipped, ShippedProgram)
        made = compile_mosaic_kernels(program, target.gpu) if shipped.mosaic else compile_kernels(program)
        made = [kernel for kernel in made if kernel.name.startswith(shipped.kernels)]
    return {kernel.name: figures(kernel, target.gpu) for kernel in sorted(made, key=lambda k: k.name)}


def figures(kernel: CompiledKernel, gpu: str) -> Figures:
    """As the report has them."""
    found = {
        "threads": kernel.threads,
        "registers": kernel.registers,
        "spilled": kernel.spilled,
        "shared_memory": kernel.shared_memory,
    }
    return {
        **found,
        **_resident(found, gpu),
        "instructions": kernel.instructions,
        "tensor_core": kernel.tensor_core,
        "serialized": any("serialized" in warning for warning in kernel.warnings),
    }


def _resident(found: Figures, gpu: str) -> Figures:
    """The blocks that a multiprocessor will run at once: not the compiler says that, but the data sheet."""
    need = {name: found[name] for name in ("threads", "registers", "shared_memory")}
    return {"resident_blocks": data_sheet(gpu).resident_blocks(**need)}


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


def remarks(examined: Examined, golden: dict[str, Any], versions: dict[str, str]) -> dict[str, list[str]]:
    """Kernel → its faults, and how it differs from the golden report, in sentences."""
    target, said = examined.target, {}
    expected = golden["programs"].get(target.key, {"kernels": {}})["kernels"]
    same = golden["compilers"] == versions
    for name, found in examined.kernels.items():
        said[name] = faults(name, found, target.gpu, target.program)
        if name in expected:
            said[name] += differences(name, found, expected[name], same_compiler=same)
        else:
            said[name].append("not in the report")
    return said


def report(examined: Iterable[Examined], versions: dict[str, str]) -> dict[str, Any]:
    """The whole report, of the compilers of `versions`."""
    programs = {each.target.key: {"lowered": each.lowered, "kernels": each.kernels} for each in examined}
    return {"compilers": versions, "programs": programs}


def compilers() -> dict[str, str]:
    """What decides over machine code, with versions."""
    said = subprocess.run(
        [toolkit().ptxas, "--version"], capture_output=True, encoding="utf-8", check=True
    ).stdout
    found = {"jax": jax.__version__}
    for name in ("jaxlib", *PLUGINS):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    found["ptxas"] = re.findall(r"V([\d.]+)", said)[0]
    if find_spec("triton") is not None:
        found["triton"] = version("triton")
    return found


def to_json(whole: dict[str, Any]) -> str:
    """A line for each program and each kernel, so that a change shows as one."""
    programs = []
    for key, program in whole["programs"].items():
        inner = ",\n".join(
            f"  {json.dumps(name)}: {json.dumps(found)}" for name, found in program["kernels"].items()
        )
        mark = f'"lowered": {json.dumps(program["lowered"])}'
        programs.append(f' {json.dumps(key)}: {{{mark}, "kernels": {{\n{inner}}}}}')
    opening = f'{{"compilers": {json.dumps(whole["compilers"])}, "programs": {{'
    return "\n".join([opening, ",\n".join(programs), "}}", ""])
