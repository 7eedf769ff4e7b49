"""What the GPU kernels of a program have become once they are machine code."""

import dataclasses
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import jax

from mjx.gpus.toolkit import Toolkit, toolkit, with_assembler

TENSOR_CORE = ("UTCHMMA", "HGMMA", "HMMA", "QGMMA", "IMMA", "DMMA")
"""The instructions of SASS that multiply matrices."""


@dataclasses.dataclass(frozen=True)
class CompiledKernel:
    """One kernel as ptxas made it."""

    name: str
    threads: int
    """Of a block."""
    registers: int
    """Of a thread."""
    spilled: int
    """Bytes of registers written to memory, and read back, by each thread."""
    shared_memory: int
    """Bytes of a block."""
    instructions: int
    """In the program's text, not as they are run."""
    tensor_core: dict[str, int]
    """Instruction that multiplies matrices → how often it stands in the text."""
    warnings: tuple[str, ...]
    """Of ptxas, about speed."""


class Recorder:
    """A CUDA whose assembler keeps what it was given, what it made and what it said."""

    def __init__(self, folder: Path):
        self.folder, self.real = folder, toolkit()
        self.kept = folder / "kept"
        self.kept.mkdir()
        with_assembler(
            folder,
            f'kept=$(mktemp -d "{self.kept}/XXXXXX")\n'
            'cp "$1" "$kept/source.ptx"\n'
            f'"{self.real.ptxas}" -v "$@" 2> "$kept/log"; status=$?\n'
            'cat "$kept/log" >&2\n'
            '[ "$2" = -o ] && [ -f "$3" ] && cp "$3" "$kept/cubin"\n'
            "exit $status\n",
        )

    def kernels(self) -> list[CompiledKernel]:
        return [
            found
            for kept in sorted(self.kept.iterdir())
            if (kept / "cubin").exists()
            for found in read_cubin(kept / "source.ptx", kept / "log", kept / "cubin", self.real)
        ]


def compile_kernels(program: jax.stages.Lowered) -> list[CompiledKernel]:
    """Compile a program for the GPU that it was lowered for; its kernels, XLA's own among them.

    Raises:
        InputError: no compiler is installed.
        jax.errors.JaxRuntimeError: the program does not compile, as when it asks for too much shared memory.
    """
    with tempfile.TemporaryDirectory() as name:
        recorder = Recorder(Path(name))
        dump = Path(name) / "dump"
        program.compile(compiler_options={"xla_gpu_cuda_data_dir": name, "xla_dump_to": str(dump)})
        launches = read_launches(dump)
        kernels = {kernel.name: kernel for kernel in recorder.kernels()}
    return [
        dataclasses.replace(kernels[name], threads=threads, shared_memory=shared)
        for name, (threads, shared) in launches.items()
        if name in kernels
    ]


def read_launches(dump: Path) -> dict[str, tuple[int, int]]:
    """Kernel → threads and bytes of shared memory of its blocks, as XLA will start them."""
    found = {}
    for file in dump.glob("*.thunk_sequence.txt"):
        pattern = r"(\S+) grid: \[.*?\] threads: \[(\d+), (\d+), (\d+)\]\s+shared_memory: (\d+) bytes"
        for name, *numbers in re.findall(pattern, file.read_text(encoding="utf-8")):
            x, y, z, shared = map(int, numbers)
            found[name] = (x * y * z, shared)
    return found


def read_cubin(source: Path, log: Path, cubin: Path, tools: Toolkit) -> list[CompiledKernel]:
    """The kernels of one file of machine code, with what ptxas said of them."""
    said = log.read_text(encoding="utf-8", errors="replace")
    text = source.read_text(encoding="utf-8", errors="replace")
    sass = subprocess.run(
        [tools.nvdisasm, "-c", cubin], capture_output=True, encoding="utf-8", check=True
    ).stdout
    parts = re.split(r"Compiling entry function '([^']+)' for '[^']+'", said)
    bodies = dict(re.findall(r"\.text\.(\S+?):(.*?)(?=\n\.text\.\S+:|\Z)", sass, re.S))
    found = []
    for name, part in zip(parts[1::2], parts[2::2], strict=True):
        # (?:@…)? a predicate, then the instruction with its modifiers
        names = re.findall(
            r"^\s+(?:/\*[0-9a-f]+\*/)?\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)", bodies[name], re.M
        )
        counts = Counter(names)
        threads = re.search(rf"\.entry {re.escape(name)}\(.*?\.(?:reqn|maxn)tid (\d+)", text, re.S)
        spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", part)
        shared = re.search(r"(\d+) bytes smem", part)
        found.append(
            CompiledKernel(
                name=name,
                threads=int(threads[1]) if threads else 0,
                registers=int(re.search(r"Used (\d+) registers", part)[1]),  # type: ignore[index]
                spilled=sum(map(int, spills.groups())) if spills else 0,
                shared_memory=int(shared[1]) if shared else 0,
                instructions=sum(counts.values()),
                tensor_core={name: counts[name] for name in TENSOR_CORE if counts[name]},
                warnings=tuple(dict.fromkeys(re.findall(r"(\(C75\d\d\).*)", said))),
            )
        )
    return found


def assemble(ptx: str, architecture: str, shared_memory: int = 0) -> list[CompiledKernel]:
    """Of a program in PTX, made by another compiler than XLA; `architecture` is "sm_90a".

    Raises:
        subprocess.CalledProcessError: ptxas refuses it.
    """
    tools = toolkit()
    with tempfile.TemporaryDirectory() as name:
        source, log, cubin = (Path(name) / part for part in ("source.ptx", "log", "cubin"))
        source.write_text(ptx, encoding="utf-8")
        command = [tools.ptxas, "-v", source, "-o", cubin, f"-arch={architecture}"]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
        log.write_text(done.stderr, encoding="utf-8")
        kernels = read_cubin(source, log, cubin, tools)
    return [
        dataclasses.replace(kernel, shared_memory=kernel.shared_memory + shared_memory) for kernel in kernels
    ]
