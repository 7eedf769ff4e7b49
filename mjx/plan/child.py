"""One plan in a process of its own: `python -m mjx.plan.child REQUEST RESULT`, both JSON files.

The compiler ends its process where it meets what it did not expect, and some of JAX's settings are a
process's: simulated devices, XLA's flags, the platform.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path


def main(request_file: str, result_file: str) -> None:
    """Write `{"plan": …}`, or `{"error": sentence}` for what the user can mend."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # before JAX starts: the GPUs are not here
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"

    import jax

    from mjx.errors import InputError
    from mjx.launch.runtime import apply_xla_flags
    from mjx.parse import parse
    from mjx.plan.compiled_step import compile_step
    from mjx.plan.read_step import make_plan, pool_of
    from mjx.plan.request import PlanRequest

    try:
        request = parse(PlanRequest, json.loads(Path(request_file).read_text(encoding="utf-8")), "request")
        config = request.load()
        apply_xla_flags(config.runtime)
        jax.config.update("jax_enable_compilation_cache", False)
        if request.compiler == "cpu":
            jax.config.update("jax_num_cpu_devices", request.devices)
        step = compile_step(config, request, pool_of(config, request))
        result = {"plan": dataclasses.asdict(make_plan(config, request, step))}
    except InputError as error:
        result = {"error": str(error)}
    Path(result_file).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
