"""A Triton kernel with its arguments, as data, and what can be done with it: launched from JAX, or compiled.

Nothing of Triton is imported before it is used: an installation for CPUs has none.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mjx.errors import InputError
from mjx.kernels.shipped import Assembly, Source

PTX_VERSION = 87
"""Of CUDA 12.8, the first that knows all GPUs up to Blackwell.

Triton by itself writes that of its own assembler, which drivers of older CUDAs refuse (Triton 3.9: PTX 9.4,
where CUDA 13.0 reads up to 9.0).
"""

_TRITON_TYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "int32": "i32"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Launch:
    """All that a run of a kernel needs: it takes inputs and outputs in their order, constants by name."""

    kernel: str
    """module:function, so that the module is imported only where it runs."""
    grid: tuple[int, ...]
    inputs: Mapping[str, Any]
    outputs: Mapping[str, jax.ShapeDtypeStruct]
    constants: Mapping[str, int | bool]
    num_warps: int
    num_stages: int = 1

    @property
    def name(self) -> str:
        """As it stands in machine code."""
        return self.kernel.partition(":")[2]

    def load(self) -> Any:
        """The kernel."""
        module, _, function = self.kernel.partition(":")
        return getattr(import_module(module), function)


Launcher = Callable[[Launch], dict[str, Array]]
"""Runs a kernel; its outputs, by name."""


def launches_of(program: Callable[[Launcher], Callable[..., Any]], *arguments: Any) -> list[Launch]:
    """All that a program would launch on arguments of these shapes, with shapes for arrays; nothing is run.

    `program` makes a function of the arguments that launches by what it is given.
    """
    found: list[Launch] = []

    def record(launch: Launch) -> dict[str, Array]:
        found.append(launch)
        return {name: jnp.zeros(shape.shape, shape.dtype) for name, shape in launch.outputs.items()}

    jax.eval_shape(program(record), *arguments)
    return found


def launch_on_gpu(launch: Launch, compute_capability: int | None = None) -> dict[str, Array]:
    """The outputs, by name. Traced, like any JAX function; 90 is an H100, None the GPU that is here."""
    jax_triton = _jax_triton()
    shapes = tuple(launch.outputs.values())
    # jax-triton renamed out_shape in 0.4, and took options of the compiler (see _compile_as_we_do).
    if _is_new(jax_triton):
        options = {
            "out_type": shapes,
            "backend_options": {"ptx_version": PTX_VERSION, "enable_fp_fusion": True},
        }
    else:
        options = {"out_shape": shapes}
    results = jax_triton.triton_call(
        *launch.inputs.values(),
        kernel=launch.load(),
        grid=launch.grid,
        name=launch.name,
        num_warps=launch.num_warps,
        num_stages=launch.num_stages,
        compute_capability=compute_capability,
        **options,
        **launch.constants,
    )
    return dict(zip(launch.outputs, results, strict=True))


def source_of(launch: Launch, compute_capability: float) -> Source:
    """The kernel as Triton compiles it, which needs no GPU: to machine code for that of a capability."""
    compiler = _import("triton.compiler")
    ir = _import("triton._C.libtriton").ir
    target = _import("triton.backends.compiler").GPUTarget("cuda", round(10 * compute_capability), 32)
    kernel = launch.load()
    arrays = [*launch.inputs.values(), *launch.outputs.values()]
    types = [f"*{_TRITON_TYPES[array.dtype.name]}" for array in arrays]
    signature = dict(zip(kernel.arg_names, types, strict=False)) | dict.fromkeys(
        launch.constants, "constexpr"
    )
    constants = {(kernel.arg_names.index(name),): value for name, value in launch.constants.items()}
    aligned = {(index,): [["tt.divisibility", 16]] for index in range(len(arrays))}  # as XLA allocates
    source = compiler.ASTSource(kernel, signature, constants, aligned)
    asked = {
        "num_warps": launch.num_warps,
        "num_stages": launch.num_stages,
        "ptx_version": PTX_VERSION,
        "enable_fp_fusion": True,
    }
    # What triton.compiler.compile does, stage by stage: it stops for nothing, and assembles at the end.
    backend = compiler.make_backend(target)
    options = backend.parse_options(asked)
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    functions = backend.get_codegen_implementation(options)
    module = source.make_ir(target, options, functions, backend.get_module_map(), context)
    stages: dict[str, Any] = {}
    backend.add_stages(stages, options, source.language)
    metadata = {"target": target, **vars(options)}
    module = stages["ttir"](module, metadata)  # no names of modules are left, all functions are inlined
    return Source(
        text=f"{target} {asked}\n{module.str_nodebug()}",
        assemble=functools.partial(_assemble, launch, stages, module, metadata),
    )


def _assemble(launch: Launch, stages: dict[str, Any], made: Any, metadata: dict[str, Any]) -> Assembly:
    """The stages behind the first."""
    knobs = _import("triton.knobs")
    with knobs.compilation.scope():
        knobs.compilation.disable_line_info = True  # the same kernel is the same text, wherever it stands
        for stage in ("ttgir", "llir", "ptx"):
            made = stages[stage](made, metadata)
    return Assembly(
        name=launch.name, ptx=made, threads=32 * launch.num_warps, shared_memory=metadata["shared"]
    )


@functools.cache
def _jax_triton() -> Any:
    """jax-triton, made to work with this JAX and this Triton."""
    jax_triton = _import("jax_triton")
    library = _import("jax_triton.triton_lib")
    if _is_new(jax_triton):
        _keep_calls_on_new_jax(library)
    else:
        _compile_as_we_do(library)
    return jax_triton


def _import(name: str) -> Any:
    try:
        import_module("triton")
        return import_module(name)
    except ImportError as error:
        raise InputError(
            f"implementation = 'triton' needs Triton and jax-triton ({error}): pip install 'mjx[triton]' "
            "brings them"
        ) from error


def _is_new(jax_triton: Any) -> bool:
    major, minor, *_ = jax_triton.__version__.split(".")
    return (int(major), int(minor)) >= (0, 4)


def _keep_calls_on_new_jax(library: Any) -> None:
    """JAX 0.12 calls rules of dead code elimination with one argument more than jax-triton 0.4.1 takes.

    Every jit fails without this. Until jax-triton has a release made for JAX 0.12.
    """
    rules = import_module("jax._src.interpreters.partial_eval").dce_rules
    rules[library.triton_kernel_call_p] = lambda used, *rest: ([True] * len(rest[-1].invars), rest[-1])


def _compile_as_we_do(library: Any) -> None:
    """jax-triton 0.3 cannot be told the PTX version: its backend is. Until Python 3.11 is dropped."""
    cuda = import_module("triton.backends.nvidia.compiler")
    mlir = import_module("jax.interpreters.mlir")

    class Backend(cuda.CUDABackend):
        def parse_options(self, options: dict[str, Any]) -> Any:
            return super().parse_options({**options, "ptx_version": PTX_VERSION})

    def backend(device: int, compute_capability: int) -> Any:
        return Backend(cuda.GPUTarget("cuda", compute_capability, 32))

    rule = functools.partial(library.triton_kernel_call_lowering, backend)
    mlir.register_lowering(library.triton_kernel_call_p, rule, platform="cuda")
