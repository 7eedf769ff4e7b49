"""How tests compile: most of a test's time is spent in the compiler, and little in what it has compiled."""

import os

FUSIONS = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
"""Each fusion without a pipeline of MLIR passes of its own, and all of them in one module of LLVM: together
half of what is left without LLVM's optimizations."""

ENVIRONMENT = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {FUSIONS}".strip(),
}
_FOR_USERS = {name: os.environ.get(name) for name in ENVIRONMENT}


def compile_in_a_hurry(hurried: bool) -> None:
    """From now on, here and in processes that are started: without most optimizations, or as for users.

    XLA reads its flags once; in a process whose first compilation was hurried they stay.
    """
    for name, value in (ENVIRONMENT if hurried else _FOR_USERS).items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    import jax

    jax.config.update("jax_disable_most_optimizations", hurried)
