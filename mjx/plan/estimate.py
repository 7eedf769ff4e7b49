"""A plan by closed forms alone, in milliseconds: what is worth compiling, and what would help."""

import dataclasses
import math

from mjx.config import RunConfig
from mjx.plan.closed_form import StepMemory, step_memory, traffic
from mjx.plan.read_step import StepTime, pool_of
from mjx.plan.request import PlanRequest
from mjx.plan.scheme import Scheme, Sublayer, scheme_of
from mjx.training.gradients import FLOAT32

EXPOSED = 0.5
"""Of what tensor parallelism sends, the share that nothing runs beside; compiled steps had 0.4 to 0.6."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """What the closed forms say of one recipe."""

    parameters: float
    """Bytes on one device, as are the following."""
    optimizer: float
    step: StepMemory
    pool: float
    time: StepTime
    uncounted: tuple[str, ...]
    """Weights whose products are left out, with their axes."""

    @property
    def needed(self) -> float:
        """Of the pool."""
        return self.parameters + self.optimizer + self.step.temporary

    @property
    def fits(self) -> bool:
        """In the pool."""
        return self.needed <= self.pool


def estimate(config: RunConfig, request: PlanRequest) -> Estimate:
    """Of a recipe on a cluster.

    Raises:
        InputError: the mesh does not fit the devices, or the model or the batch do not fit the mesh.
    """
    scheme = scheme_of(config, request.devices)
    stored = sum(weight.stored for weight in scheme.weights) * FLOAT32
    moments = sum(weight.stored * weight.moment_bytes for weight in scheme.weights)
    if config.training.zero1:
        moments /= scheme.mesh["data"]
    return Estimate(
        parameters=stored,
        optimizer=moments,
        step=step_memory(scheme),
        pool=pool_of(config, request),
        time=_time(config, request, scheme),
        uncounted=scheme.uncounted,
    )


def _time(config: RunConfig, request: PlanRequest, scheme: Scheme) -> StepTime:
    sheet = request.sheet
    at_peak = _flops(config, scheme) / request.devices / sheet.tensor_flops
    node = network = exposed = 0.0
    for term in traffic(scheme):
        if span_of(scheme, term.axes) <= request.per_node:
            seconds = term.wire_bytes / sheet.nvlink_bandwidth
            node += seconds
        else:
            seconds = term.wire_bytes / sheet.network_bandwidth
            network += seconds
        exposed += EXPOSED * seconds if term.name == "tensor" else 0.0
    return StepTime(
        at_peak=at_peak, compute=at_peak / request.utilization, node=node, network=network, exposed=exposed
    )


def span_of(scheme: Scheme, axes: tuple[str, ...]) -> int:
    """Neighbouring devices that a group along these axes stretches over."""
    names = list(scheme.mesh)
    first = min(names.index(axis) for axis in axes)
    return math.prod(scheme.mesh[name] for name in names[first:])


def _flops(config: RunConfig, scheme: Scheme) -> float:
    """Of a batch: the model's, and those of recomputation."""
    arrays = config.data.arrays(config.training.batch_size)
    total, tokens = config.model.flops(arrays), math.prod(config.model.size(arrays))
    weights = [w for s in scheme.sublayers for w in s.weights if not w.of_some_tokens]
    stack = 2 * tokens * sum(weight.elements for weight in weights)
    head = 2 * tokens * (config.model.vocabulary or 0) * scheme.embed
    attention = max(total / 3 - stack - head, 0.0)
    again = stack - 2 * tokens * sum(_last_product(unit) for unit in scheme.units.values())
    return total + {"none": 0.0, "selective": attention, "full": attention + again}[scheme.remat]


def _last_product(unit: list[Sublayer]) -> float:
    """Elements of the weights that make a unit's output, which no gradient needs."""
    return sum(weight.elements for weight in unit[-1].weights if weight.makes_residual)
