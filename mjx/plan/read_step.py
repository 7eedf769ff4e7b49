"""The plan of a run: what its training step needs of each GPU, and how long it takes at given rates."""

import dataclasses
import importlib.metadata
import math
import resource
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mjx.config import RunConfig
from mjx.gpus.target import device_kind
from mjx.plan.buffer_names import buffer_names
from mjx.plan.closed_form import step_memory, term_of, traffic
from mjx.plan.compiled_step import CompiledStep
from mjx.plan.program.buffers import live_at_peak
from mjx.plan.program.collectives import Collective, Reach, collectives
from mjx.plan.program.hlo import ArrayType
from mjx.plan.program.matmuls import attention_workspace, count_products
from mjx.plan.program.origin import Part
from mjx.plan.request import Compiler, PlanRequest, Products
from mjx.plan.scheme import Scheme, scheme_of

LARGEST = 10
"""Buffers that a plan names."""
NCCL_SHARE = 0.15
"""Of a GPU's multiprocessors, what NCCL's kernels take while they run beside products: about 20 of the 132 of
an H100, with its default number of channels."""
JAX_POOL = 0.75
"""The share of a GPU's memory that JAX takes where runtime.gpu_memory_fraction does not say."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LargeBuffer:
    """One of the largest arrays at the step's peak."""

    bytes: int
    array: str
    role: str
    part: Part
    name: str
    """What the model calls it; empty where it does not."""
    code: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one device, at the step's peak."""

    parameters: float
    optimizer: float
    batch: float
    arguments: float
    """The three together, as the compiler says."""
    gradients: float
    kept: float
    """Activations that the forward pass keeps for the backward pass."""
    temporaries: float
    """All else that XLA allocates; where `exact` is false, with gradients and what is kept."""
    workspace: float
    """That cuDNN's attention asks for at run time."""
    exact: bool
    """False: XLA's CPU backend said so, and it is an upper bound."""
    pool: float
    """What JAX takes of the GPU: runtime.gpu_memory_fraction of it."""
    total: float
    """What the GPU has."""
    reserve: float
    """What CUDA, NCCL and loaded kernels need outside of the pool."""
    closed_form: float
    """Of gradients, kept and temporaries, by docs/parallelism.md."""
    largest: tuple[LargeBuffer, ...]

    @property
    def allocated(self) -> float:
        """Besides the arguments: XLA's temporaries."""
        return self.gradients + self.kept + self.temporaries

    @property
    def needed(self) -> float:
        """Of the pool."""
        return self.parameters + self.optimizer + self.batch + self.allocated + self.workspace

    @property
    def fits(self) -> bool:
        """In the pool, which leaves the reserve."""
        return self.needed <= self.pool and self.pool + self.reserve <= self.total


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flops:
    """Of one device in one step, a multiply-add counted as two."""

    compiled: float
    """Counted in the compiled step: recomputation too, causal attention as half."""
    attention: float
    """Of these, in cuDNN's attention."""
    model: float
    """By the model's own counter, without recomputation."""
    kernels: dict[str, float]
    """Calls of kernels, whose FLOPs are not among `compiled`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Traffic:
    """One collective."""

    kind: str
    arrays: str
    axes: tuple[str, ...]
    group_size: int
    reach: Reach
    count: float
    wire_bytes: float
    """Sent by each device in one step."""
    asynchronous: bool
    part: Part
    code: str
    term: str | None
    """Of the closed form; None: in none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TermCheck:
    """One term of the closed form, against the compiled step."""

    name: str
    axes: tuple[str, ...]
    closed_form: float
    compiled: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds. What is sent by asynchronous collectives is taken to hide behind the products, which it slows
    down; all else not."""

    at_peak: float
    """Of the products, at the data sheet's peak."""
    compute: float
    """At the given share of it."""
    node: float
    """Of the bytes inside of nodes, at NVLink's rate."""
    network: float
    """Of the bytes between nodes, at the network's rate."""
    exposed: float
    """Of these two, in collectives that nothing runs beside."""

    @property
    def estimate(self) -> float:
        """Of the step."""
        hidden = self.node + self.network - self.exposed
        return self.exposed + max(self.compute + NCCL_SHARE * hidden, hidden)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """All that is planned of one recipe on one cluster."""

    recipe: str
    overrides: tuple[str, ...]
    gpu: str
    """As CUDA calls it."""
    nodes: int
    gpus_per_node: int
    mesh: dict[str, int]
    compiler: Compiler
    products: Products
    versions: dict[str, str]
    parameters: int
    batch_size: int
    microbatches: int
    sequence_length: int
    remat: str
    memory: Memory
    flops: Flops
    traffic: tuple[Traffic, ...]
    checks: tuple[TermCheck, ...]
    uncounted: tuple[str, ...]
    """Weights whose products are in no closed form, with their axes."""
    decided: tuple[str, ...]
    """What layers decided by the mesh, and why."""
    exact_traffic: bool
    """False where a loop of unknown length was counted once."""
    utilization: float
    time: StepTime
    lowering_seconds: float
    compiling_seconds: float
    peak_memory: float
    """Bytes of this machine that planning took."""

    @property
    def devices(self) -> int:
        """GPUs of the run."""
        return self.nodes * self.gpus_per_node

    @property
    def tokens(self) -> int:
        """Of one step."""
        return self.batch_size * self.sequence_length

    def to_tree(self) -> dict[str, Any]:
        """Plain dicts, with what follows from them, for JSON."""
        memory, time = self.memory, self.time
        derived = {
            "fits": memory.fits,
            "needed_bytes": memory.needed,
            "node_wire_bytes": self.wire_bytes("node"),
            "network_wire_bytes": self.wire_bytes("network"),
            "step_seconds": time.estimate,
            "tokens_per_second": self.tokens / time.estimate,
            "model_flops_utilization": self.model_flops_utilization,
        }
        return dataclasses.asdict(self) | {"summary": derived}

    def wire_bytes(self, reach: Reach) -> float:
        """Sent by each device in one step."""
        return sum(t.wire_bytes for t in self.traffic if t.reach == reach)

    @property
    def model_flops_utilization(self) -> float:
        """MFU that the estimated time would mean."""
        return self.flops.model * self.time.at_peak / (self.flops.compiled * self.time.estimate)


def pool_of(config: RunConfig, request: PlanRequest) -> float:
    """Bytes of each GPU that JAX takes."""
    return request.sheet.memory * (config.runtime.gpu_memory_fraction or JAX_POOL)


def make_plan(config: RunConfig, request: PlanRequest, step: CompiledStep) -> Plan:
    """Read a compiled step."""
    mesh = dict(step.trainer.mesh.shape)
    found = collectives(step.program, mesh, request.per_node)
    scheme = scheme_of(config, request.devices)
    terms = traffic(scheme)
    rows = tuple(_traffic(collective, term_of(collective, terms)) for collective in found)
    products = count_products(step.program)
    arrays = step.trainer.batch_layout.arrays
    batch_size, sequence = config.model.size(arrays)
    flops = Flops(
        compiled=products.known + (0.0 if products.exact else _in_unknown_loops(scheme)),
        attention=products.attention,
        model=config.model.flops(arrays) / request.devices,
        kernels=products.kernels,
    )
    return Plan(
        recipe=request.recipe,
        overrides=request.overrides,
        gpu=device_kind(request.gpu),
        nodes=request.nodes,
        gpus_per_node=request.per_node,
        mesh=mesh,
        compiler=request.compiler,
        products=request.products,
        versions=_versions(),
        parameters=config.model.num_parameters(),
        batch_size=batch_size,
        microbatches=config.training.microbatches,
        sequence_length=sequence,
        remat=config.model.remat,
        memory=_memory(config, request, step, step_memory(scheme).temporary),
        flops=flops,
        traffic=rows,
        checks=tuple(
            TermCheck(
                name=term.name,
                axes=term.axes,
                closed_form=term.wire_bytes,
                compiled=sum(r.wire_bytes for r in rows if r.term == term.name and r.axes == term.axes),
            )
            for term in terms
        ),
        uncounted=scheme.uncounted,
        decided=step.trainer.decided,
        exact_traffic=all(collective.exact for collective in found),
        utilization=request.utilization,
        time=_time(request, flops, rows),
        lowering_seconds=step.lowering_seconds,
        compiling_seconds=step.compiling_seconds,
        peak_memory=_peak_memory(),
    )


def _in_unknown_loops(scheme: Scheme) -> float:
    """FLOPs in loops that were counted once: forward, backward, and again what a block keeps nothing of."""
    layers = (sublayer.work.flops * sublayer.repeats for sublayer in scheme.sublayers)
    return sum(layers) * scheme.microbatches * (1 + 2 + 2 / 3)


def _versions() -> dict[str, str]:
    names = ("mjx", "jax", "jaxlib", "jax-cuda13-pjrt")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _peak_memory() -> float:
    """Bytes that this process took at most; getrusage may say those of its parent at the fork."""
    status = Path("/proc/self/status")
    if not status.exists():  # no Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
    (line,) = [line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024.0


def _memory(config: RunConfig, request: PlanRequest, step: CompiledStep, closed_form: float) -> Memory:
    state, batch = step.trainer.layout.abstract, step.trainer.batch_layout.abstract
    allocated = step.temporary_bytes + step.output_bytes - step.alias_bytes
    buffers, named = [], buffer_names(config, step.trainer)
    if step.buffer_assignment is not None and step.live_ranges is not None:
        parameters = [_local_type(leaf) for leaf in jax.tree.leaves(state.parameters)]
        buffers = live_at_peak(step.buffer_assignment, step.live_ranges, step.program, parameters)
    roles = {role: sum(b.bytes for b in buffers if b.role == role) for role in ("kept", "gradient")}
    return Memory(
        parameters=_local_bytes(state.parameters),
        optimizer=_local_bytes((state.optimizer, state.step)),
        batch=_local_bytes(batch),
        arguments=step.argument_bytes,
        gradients=roles["gradient"],
        kept=roles["kept"],
        temporaries=allocated - roles["gradient"] - roles["kept"],
        workspace=attention_workspace(step.program),
        exact=request.compiler == "gpu",
        pool=pool_of(config, request),
        total=request.sheet.memory,
        reserve=request.sheet.reserved_memory,
        closed_form=closed_form,
        largest=tuple(
            LargeBuffer(
                bytes=b.bytes,
                array=b.array,
                role=b.role,
                part=b.origin.part,
                name=named(b),
                code=b.origin.code,
            )
            for b in buffers[:LARGEST]
        ),
    )


_HLO_DTYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


def _local_type(leaf: jax.ShapeDtypeStruct) -> ArrayType:
    return ArrayType(_HLO_DTYPES.get(str(leaf.dtype), str(leaf.dtype)), _local_shape(leaf))


def _local_shape(leaf: jax.ShapeDtypeStruct) -> tuple[int, ...]:
    return leaf.sharding.shard_shape(leaf.shape)  # type: ignore[union-attr]


def _local_bytes(tree: Any) -> float:
    """On one device."""
    return float(
        sum(math.prod(_local_shape(leaf)) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))
    )


def _traffic(collective: Collective, term: str | None) -> Traffic:
    return Traffic(
        kind=collective.kind,
        arrays=" + ".join(map(str, collective.arrays)),
        axes=collective.axes,
        group_size=collective.group_size,
        reach=collective.reach,
        count=collective.count,
        wire_bytes=collective.wire_bytes,
        asynchronous=collective.asynchronous,
        part=collective.origin.part,
        code=collective.origin.code,
        term=term,
    )


def _time(request: PlanRequest, flops: Flops, rows: tuple[Traffic, ...]) -> StepTime:
    sheet = request.sheet
    rates = {"node": sheet.nvlink_bandwidth, "network": sheet.network_bandwidth}
    seconds = {reach: 0.0 for reach in rates}
    exposed = 0.0
    for row in rows:
        took = row.wire_bytes / rates[row.reach]
        seconds[row.reach] += took
        exposed += 0.0 if row.asynchronous else took
    at_peak = flops.compiled / sheet.tensor_flops
    return StepTime(
        at_peak=at_peak,
        compute=at_peak / request.utilization,
        node=seconds["node"],
        network=seconds["network"],
        exposed=exposed,
    )
