"""How tests compile: most of a test's time is spent in the compiler, and little in what it has compiled."""

import os
from importlib.metadata import version

_ONE_MODULE = "--xla_cpu_parallel_codegen_split_count=1"
_HAS_OTHER_EMITTERS = tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 12)
FUSIONS = f"--xla_cpu_use_fusion_emitters=false {_ONE_MODULE}" if _HAS_OTHER_EMITTERS else _ONE_MODULE
"""Each fusion without a pipeline of MLIR passes of its own (of jaxlib before 0.12), and all of them in one
module of LLVM: together half of what is left without LLVM's optimizations."""

_FLAGS = os.environ.get("XLA_FLAGS", "").replace(FUSIONS, "").strip()
HURRIED = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XLA_FLAGS": f"{_FLAGS} {FUSIONS}".strip()}
FOR_USERS = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0", "XLA_FLAGS": _FLAGS}
"""Not what this process began with, which one in a hurry may have started."""


def compile_in_a_hurry(hurried: bool) -> None:
    """From now on, here and in processes that are started: without most optimizations, or as for users; those
    are compiled here and now, since what comes from a cache leaves no dumps.

    XLA reads its flags once; in a process whose first compilation was hurried they stay.
    """
    os.environ.update(HURRIED if hurried else FOR_USERS)
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    jax.config.update("jax_disable_most_optimizations", hurried)
    jax.config.update("jax_enable_compilation_cache", hurried)
    compilation_cache.reset_cache()  # JAX looks at the setting once
