"""How tests compile: most of a test's time is spent in the compiler, and little in what it has compiled."""

from typing import Any

import jax
from jax._src import compiler  # JAX has no public name for the options that it gives to every compilation

OPTIONS = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}
"""Each fusion without a pipeline of MLIR passes of its own, and all of them in one module of LLVM: together
half of what is left without LLVM's optimizations. With those, the fusion emitters are the quicker ones."""

get_compile_options = compiler.get_compile_options


def compile_in_a_hurry(hurried: bool) -> None:
    """From now on: without most optimizations, or as for users."""
    jax.config.update("jax_disable_most_optimizations", hurried)


def _get_compile_options(*args: Any, env_options_overrides: dict[str, Any] | None = None, **more: Any) -> Any:
    """JAX's own, with ours where they are said by nobody."""
    if jax.config.read("jax_disable_most_optimizations"):
        env_options_overrides = OPTIONS | (env_options_overrides or {})
    return get_compile_options(*args, env_options_overrides=env_options_overrides, **more)


compiler.get_compile_options = _get_compile_options
