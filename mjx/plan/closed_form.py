"""What a step must send and hold at least, by formulas: docs/parallelism.md derives them.

They check the compiled step (`mjx plan`), and tell which meshes are worth compiling (`mjx plan --search`).
"""

import dataclasses
import math

from mjx.plan.program.collectives import Collective
from mjx.plan.scheme import Scheme, Sublayer
from mjx.training.gradients import FLOAT32, REPLICAS

_SMALL = 2**16
"""Bytes of a vector that is no weight to speak of."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Term:
    """One kind of traffic."""

    name: str
    """weights, gradients, replicas, tensor, or what a mixer calls its `Exchange`."""
    axes: tuple[str, ...]
    wire_bytes: float
    """Sent by each device in one step."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepMemory:
    """Bytes on one device."""

    kept: float
    """Activations that the forward pass keeps for the backward pass."""
    gradients: float
    """Of all parameters, as the optimizer sees them."""
    layer: float
    """While one unit of the stack is computed again and differentiated: its activations, their gradients, its
    weights and their gradients."""
    head: float
    """While the loss and its gradient are made."""

    @property
    def temporary(self) -> float:
        """All that a step holds besides its arguments, at the larger of its two peaks."""
        return self.kept + max(self.gradients + self.layer, self.head)


def traffic(scheme: Scheme) -> tuple[Term, ...]:
    """The least that the scheme has to send, over the axes that are larger than one."""
    terms = [*_weight_terms(scheme), *_replica_terms(scheme), *_tensor_terms(scheme), *_mixer_terms(scheme)]
    return tuple(term for term in terms if term.wire_bytes)


def term_of(collective: Collective, terms: tuple[Term, ...]) -> str | None:
    """The term that a compiled collective belongs to; None: it is in no closed form.

    Sums of scalars and of vectors (the loss, the gradient's norm, the norms' statistics) are in none.
    """
    if all(len(array.shape) < 2 and array.bytes < _SMALL for array in collective.arrays):
        return None
    wanted: dict[str, str] = {}
    if collective.origin.exchange:
        return collective.origin.exchange
    if collective.axes == ("tensor",):
        wanted = {"all-gather": "tensor", "reduce-scatter": "tensor", "all-reduce": "tensor"}
    elif any(term.name == "weights" and term.axes == collective.axes for term in terms):
        exchanged = "gradients" if collective.origin.part == "backward" else "weights"
        wanted = {"all-gather": "weights", "reduce-scatter": "gradients", "all-to-all": exchanged}
        wanted["all-reduce"] = "gradients"  # more than a reduce-scatter sends, as the check then shows
    replicas = any(term.name == "replicas" and term.axes == collective.axes for term in terms)
    if replicas and collective.axes == (
        REPLICAS,
    ):  # with ZeRO-1 the sum is scattered, and the new weights gathered
        wanted = dict.fromkeys(("all-reduce", "reduce-scatter", "all-gather"), "replicas")
    elif replicas and collective.kind == "all-reduce":
        wanted = {"all-reduce": "replicas"}
    return wanted.get(collective.kind)


def step_memory(scheme: Scheme) -> StepMemory:
    """The least that a step has to hold besides parameters, optimizer and batch."""
    size = scheme.dtype_bytes
    gradients = sum(weight.stored for weight in scheme.weights) * FLOAT32
    if scheme.microbatches > 1:
        gradients *= 2  # the sum, and the microbatch's
    return StepMemory(
        kept=_kept(scheme),
        gradients=gradients,
        layer=max((_layer(scheme, unit) for unit in scheme.units.values()), default=0.0) * size,
        head=_head(scheme),
    )


def _ring(group: int) -> float:
    """The share of an array that a device sends in an all-gather or reduce-scatter of it."""
    return (group - 1) / group


def _weight_terms(scheme: Scheme) -> list[Term]:
    """Each weight is gathered once per pass, forward and backward, and its gradient is scattered once."""
    gathered: dict[tuple[str, ...], float] = {}
    scattered: dict[tuple[str, ...], float] = {}
    lookup = scheme.tables[0] if len(scheme.tables) > 1 else None
    stacked = scheme.stacked
    for weight in scheme.weights:
        if weight.gather_size == 1 or weight.is_router:  # of which so little is sent that nothing counts it
            continue
        sent = weight.resident * scheme.dtype_bytes * _ring(weight.gather_size)
        once = 2 if weight.name in stacked else 1  # outside of the stack both passes use one gathered copy
        if weight is lookup:  # each device looks its columns up for all, and they exchange what they found
            found = scheme.looked_up * scheme.embed * scheme.dtype_bytes * _ring(weight.gather_size)
            sent = min(sent, found)
        axes = weight.gathered_over
        gathered[axes] = gathered.get(axes, 0) + once * sent * scheme.microbatches
        scattered[axes] = scattered.get(axes, 0) + sent * scheme.microbatches
    return [
        *(Term(name="weights", axes=axes, wire_bytes=sent) for axes, sent in gathered.items()),
        *(Term(name="gradients", axes=axes, wire_bytes=sent) for axes, sent in scattered.items()),
    ]


def _replica_terms(scheme: Scheme) -> list[Term]:
    """The gradients of copies of a weight are summed: over the axes that split tokens, but not the weight.

    Inside of the stack's loop this happens for every microbatch, outside of it once; `scheme.replicas` add
    everything up once, in the dtype that the sum over microbatches has.
    """
    terms: dict[tuple[str, ...], float] = {}
    if scheme.replicas is not None:
        stored = sum(weight.stored for weight in scheme.weights)
        terms[scheme.replicas,] = 2 * stored * FLOAT32 * _ring(scheme.mesh[scheme.replicas])
    stacked, together = scheme.stacked, _summed_together(scheme)
    for weight in scheme.weights:
        whole = weight.name in together
        held = set() if whole else {*weight.gathered_over, *weight.split_over}
        axes = tuple(
            axis
            for axis in ("data", "fsdp", "context", "expert")
            if scheme.mesh[axis] > 1 and axis not in held and axis != scheme.replicas
        )
        group = math.prod(scheme.mesh[axis] for axis in axes)
        times = scheme.microbatches if weight.name in stacked else 1
        # A tied table's two gradients meet before they are summed over devices, as they are kept.
        tied = len(scheme.tables) == 1 and weight is scheme.tables[0]
        size = FLOAT32 if weight.float32 or tied else scheme.dtype_bytes
        summed = weight.elements * FLOAT32 if whole else weight.stored * size
        sent = 2 * summed * _ring(group) * times
        terms[axes] = terms.get(axes, 0) + sent
    return [Term(name="replicas", axes=axes, wire_bytes=sent) for axes, sent in terms.items()]


def _summed_together(scheme: Scheme) -> set[str]:
    """Routers, and vectors of units that have float32 weights, summed with them: whole, and in float32."""
    found: set[str] = set()
    for unit in scheme.units.values():
        weights = [weight for sublayer in unit for weight in sublayer.weights]
        if any(weight.is_router or weight.float32 for weight in weights):
            found |= {w.name for w in weights if w.is_router or (w.is_vector and not w.split_over)}
    return found


def _tensor_terms(scheme: Scheme) -> list[Term]:
    """Each sub-layer gathers its input's tokens and scatters the sums of its outputs, in every pass.

    A pass that recomputes leaves out the scatter of the last output, which nothing needs. Without sequence
    parallelism one all-reduce stands for a gather and a scatter, and as much is sent.
    """
    group = scheme.mesh["tensor"]
    if group == 1:
        return []
    # The embeddings' output, the head's input, and their gradients; or all-reduces of the first and the last.
    moved = 2.0 * scheme.tokens + 2.0 * scheme.looked_up * (group if scheme.sequence_parallel else 1)
    for unit in scheme.units.values():
        parallel = sum(sublayer.tensor_parallel for sublayer in unit)
        if not parallel:
            continue
        again = 0
        if scheme.remat == "full":
            unneeded = (1 if scheme.sequence_parallel else 2) * unit[-1].tensor_parallel
            again = 2 * parallel - unneeded
        elif scheme.remat == "selective" and scheme.sequence_parallel:
            again = parallel
        moved += (4 * parallel + again) * unit[0].repeats * unit[0].tokens
    sent = moved * scheme.embed * scheme.dtype_bytes * _ring(group)
    return [Term(name="tensor", axes=("tensor",), wire_bytes=sent * scheme.microbatches)]


def _mixer_terms(scheme: Scheme) -> list[Term]:
    """What mixers say that their layers exchange, and the model around them."""
    terms: dict[tuple[str, tuple[str, ...]], float] = {}
    sublayers = (sublayer for unit in scheme.units.values() for sublayer in unit)
    said = [(sublayer.repeats, each) for sublayer in sublayers for each in sublayer.work.exchanges]
    for repeats, exchange in [*said, *((1, each) for each in scheme.exchanges)]:
        sent = exchange.forward + exchange.backward
        sent += exchange.recompute if scheme.remat != "none" else 0.0
        key = exchange.name, exchange.axes
        terms[key] = terms.get(key, 0) + sent * repeats * scheme.microbatches
    return [Term(name=name, axes=axes, wire_bytes=sent) for (name, axes), sent in terms.items()]


def _kept(scheme: Scheme) -> float:
    """Bytes of one microbatch that wait for the backward pass."""
    elements = 0.0
    for unit in scheme.units.values():
        of_repeat = residual = unit[0].residual_tokens * scheme.embed
        if scheme.remat != "full":  # the residual stream in front of every sub-layer
            of_repeat = residual * len(unit)
        if scheme.remat == "none":
            of_repeat += sum(_activations(scheme, sublayer) for sublayer in unit)
        if scheme.remat == "selective":  # what products made of the residual stream
            of_repeat += sum(sublayer.tokens * sublayer.wide_outputs for sublayer in unit)
        elements += of_repeat * unit[0].repeats
    return elements * scheme.dtype_bytes


def _gathered_input(scheme: Scheme, sublayer: Sublayer) -> float:
    tokens = sublayer.tokens if sublayer.tensor_parallel else sublayer.residual_tokens
    return tokens * scheme.embed


def _activations(scheme: Scheme, sublayer: Sublayer) -> float:
    """Elements that the gradients of a sub-layer's products need: their inputs, and what lies between."""
    between = sublayer.tokens * (sublayer.wide_outputs + sublayer.wide_inputs)
    return _gathered_input(scheme, sublayer) + between + sublayer.work.kept


def _layer(scheme: Scheme, unit: list[Sublayer]) -> float:
    """Elements while the unit's largest sub-layer is differentiated."""
    recomputed = sum(_activations(scheme, sublayer) for sublayer in unit) if scheme.remat == "full" else 0.0
    if scheme.remat == "selective":
        again = (_gathered_input(scheme, s) + s.tokens * s.wide_inputs + s.work.kept for s in unit)
        recomputed = sum(again)
    # The gradients of what lies between, of the output (gathered) and of the input (not summed yet).
    differentiated = max(
        sublayer.tokens * (sublayer.wide_outputs + sublayer.wide_inputs)
        + 2 * _gathered_input(scheme, sublayer)
        + sublayer.work.between
        for sublayer in unit
    )
    weights = sum(sublayer.per_repeat(weight) for sublayer in unit for weight in sublayer.weights)
    return recomputed + differentiated + 2 * weights


def _head(scheme: Scheme) -> float:
    """Bytes: states and their gradient, the table, a chunk of logits, and what makes the table's gradient.

    The last is d_logits of all tokens or, where less, an accumulator and a chunk's product in float32.
    """
    if not scheme.tables:
        return 0.0
    table = scheme.tables[-1].resident
    vocab, size = table / scheme.embed, scheme.dtype_bytes
    states = 2 * scheme.tokens * scheme.embed * size
    chunk = scheme.tokens / scheme.loss_chunks * vocab * (FLOAT32 + size)
    gradient = min(scheme.tokens * size, 2 * scheme.embed * FLOAT32) * vocab
    return states + table * size + chunk + (gradient if scheme.loss_chunks > 1 else 0.0)
