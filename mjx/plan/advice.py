"""What to change where a plan does not fit."""

import dataclasses

from mjx.errors import InputError
from mjx.plan.estimate import estimate
from mjx.plan.read_step import Plan
from mjx.plan.request import PlanRequest
from mjx.plan.search import Overrides

_ENOUGH = 4
"""Changes that are named."""


def advice(plan: Plan, request: PlanRequest) -> list[str]:
    """Changes that would make it fit, by the closed form scaled to what was compiled; the mildest first."""
    memory = plan.memory
    if memory.fits or not memory.exact:
        return []
    config, said = request.load(), []
    largest = int(100 * (memory.total - memory.reserve) / memory.total) / 100
    if memory.pool + memory.reserve > memory.total:
        return [f"runtime.gpu_memory_fraction={largest} leaves room for CUDA, NCCL and kernels"]
    if memory.needed <= largest * memory.total:
        said.append(f"runtime.gpu_memory_fraction={largest} would hold it")
    now = estimate(config, request)
    scale = memory.allocated / now.step.temporary if now.step.temporary else 1.0
    for overrides, nodes in _changes(plan):
        if len(said) == _ENOUGH:
            break
        asked = dataclasses.replace(request, overrides=request.overrides + overrides, nodes=nodes)
        try:
            changed = estimate(asked.load(), asked)
        except InputError:
            continue
        needed = changed.parameters + changed.optimizer + scale * changed.step.temporary
        needed += memory.batch + memory.workspace
        if needed <= memory.pool:
            change = " ".join(overrides) or f"--nodes {nodes}"
            said.append(f"{change} would need about {needed / 2**30:.1f} GiB")
    return said or [f"nothing small helps: `mjx plan --search` looks at every mesh of {plan.devices} GPUs"]


def _changes(plan: Plan) -> list[tuple[Overrides, int]]:
    """(overrides, nodes): one change each, then recomputation together with more microbatches."""
    rows = plan.batch_size // (plan.mesh["data"] * plan.mesh["fsdp"] * plan.mesh["expert"])
    counts = [n for n in range(2, rows + 1) if rows % n == 0 and n > plan.microbatches][:3]
    microbatches = [(f"training.microbatches={count}",) for count in counts]
    changes: list[Overrides] = [("model.loss_chunks=16",), ("model.remat=selective",)]
    changes += [("model.remat=full",), *microbatches[:1]]
    if plan.mesh["data"] > 1:
        changes.append(("training.zero1=true",))
        changes.append(("mesh.data=1", f"mesh.fsdp={plan.mesh['data'] * plan.mesh['fsdp']}"))
    changes += [("model.remat=full", "model.loss_chunks=16", *more) for more in ((), *microbatches)]
    return [(change, plan.nodes) for change in changes] + [((), 2 * plan.nodes), ((), 4 * plan.nodes)]
