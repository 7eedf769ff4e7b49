"""What a training step has to hold and to send, as far as closed forms need to know it."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from mjx.config import RunConfig
from mjx.errors import InputError
from mjx.models.common.parameter import float32_parameters, logical_axes_of, parameters_of
from mjx.models.common.pattern import Exchange, Lengths, StepOnMesh, Work
from mjx.models.common.stack import Remat
from mjx.models.common.token_model.config import TokenModelConfig
from mjx.models.family import ModelConfig, abstract_model
from mjx.plan.stacks import stacks_of, sublayers_of, unit_of
from mjx.sharding import axes_per_dimension
from mjx.training.gradients import replica_axis
from mjx.training.moments import moments_of
from mjx.training.optimizer import OptimizerConfig
from mjx.training.parameter_kinds import STACKED, parameter_kind
from mjx.trees import flatten


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weight:
    """One parameter on the mesh."""

    name: str
    axes: tuple[str, ...]
    elements: int
    resident: int
    """Elements on one device while they are used: split over `tensor` or `expert` alone."""
    split_over: tuple[str, ...]
    """The mesh axes that split it while it is used."""
    gathered_over: tuple[str, ...]
    """The mesh axes that split it besides those: it is gathered over them for use (ZeRO-3)."""
    gather_size: int
    """Devices of these axes."""
    moment_bytes: int
    """That the optimizer keeps of each element."""
    float32: bool = False
    """Whether it is used in float32, and its gradient summed so, whatever the compute dtype."""

    @property
    def stored(self) -> float:
        """Elements on one device between uses."""
        return self.resident / self.gather_size

    @property
    def reads_residual(self) -> bool:
        """Whether every token's residual stream is multiplied by it: q, k, v, gate, up, …"""
        return self._is_product and self._features[0] == "embed"

    @property
    def makes_residual(self) -> bool:
        """Whether every token's residual stream is a product with it."""
        return self._is_product and self._features[-1] == "embed"

    @property
    def is_vector(self) -> bool:
        """Whether it is no matrix, and no stack of matrices: a norm's gain, a bias."""
        return parameter_kind(self.axes) == "vector"

    @property
    def is_router(self) -> bool:
        """Whether it makes experts' scores: in float32, and whole on every device, gradient and all."""
        return self._features == ("embed", "expert_scores")

    @property
    def _is_product(self) -> bool:
        return not self.is_vector and not self.of_some_tokens

    @property
    def of_some_tokens(self) -> bool:
        """Whether it is a stack of experts' weights, of which no token meets all."""
        return "experts" in self.axes[: -len(self._features) or None]

    @property
    def _features(self) -> tuple[str, ...]:
        return tuple(itertools.dropwhile(STACKED.__contains__, self.axes))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sublayer:
    """The weights of one residual sub-layer, without the repeats of its unit."""

    weights: tuple[Weight, ...]
    embed: int
    """Features of the residual stream."""
    repeats: int
    """How often the stack repeats the unit that it belongs to."""
    unit: str
    """Names the unit; sub-layers of one are checkpointed together."""
    work: Work
    """Of a layer and microbatch, besides products of every token with its weights."""
    tensor_parallel: bool
    """Whether `tensor` splits it, so that its input is gathered and its output summed."""
    tokens: int
    """Of one microbatch, on one device while attention and the MLP work on them."""
    residual_tokens: float
    """Of which a device holds the residual stream."""

    def per_repeat(self, weight: Weight) -> float:
        """Resident elements of one repeat."""
        return weight.resident / self.repeats

    @property
    def wide_outputs(self) -> float:
        """Features that products make of the residual stream, on one device: q, k, v, gate, up, …"""
        return sum(self._width(weight) for weight in self.weights if weight.reads_residual)

    @property
    def wide_inputs(self) -> float:
        """Features that products make the residual stream of, on one device."""
        return sum(self._width(weight) for weight in self.weights if weight.makes_residual)

    def _width(self, weight: Weight) -> float:
        return self.per_repeat(weight) / self.embed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scheme:
    """A training step on a mesh."""

    mesh: Mapping[str, int]
    sublayers: tuple[Sublayer, ...]
    tables: tuple[Weight, ...]
    """Split over the vocabulary: the token table and the head."""
    others: tuple[Weight, ...]
    """Outside of the stacks: final norm, learned positions."""
    embed: int
    tokens: int
    """In front of the head, of one microbatch, on one device."""
    looked_up: float
    """Tokens of all stacks, of which a device holds the residual stream."""
    microbatches: int
    sequence_parallel: bool
    remat: Remat
    loss_chunks: int
    replicas: str | None
    """The mesh axis over which gradients are added up once, after all microbatches."""
    dtype_bytes: int
    """Of activations, and of weights and gradients while they are sent."""
    exchanges: tuple[Exchange, ...] = ()
    """Of the model for a microbatch, besides those of its layers."""

    @property
    def weights(self) -> tuple[Weight, ...]:
        """All of them."""
        return (*(w for sublayer in self.sublayers for w in sublayer.weights), *self.tables, *self.others)

    @property
    def stacked(self) -> frozenset[str]:
        """Names of the weights inside of the stack, whose layers are gone through in a loop."""
        return frozenset(weight.name for sublayer in self.sublayers for weight in sublayer.weights)

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Weights whose products the closed forms of activations and FLOPs do not know, with their axes.

        In a stack these are all that do not lie between every token's residual stream and something else,
        but for mixers that say their work themselves; outside of it all but tables. As weights, gradients and
        moments they are counted.
        """
        unknown = [
            weight
            for sublayer in self.sublayers
            for weight in sublayer.weights
            if not (weight.reads_residual or weight.makes_residual) and sublayer.work == Work()
        ]
        unknown += [w for w in self.others if "positions" not in w.axes]
        return tuple(
            f"{weight.name} ({' × '.join(weight.axes)})" for weight in unknown if not weight.is_vector
        )

    @property
    def units(self) -> dict[str, list[Sublayer]]:
        """What the stack repeats: name → its sub-layers, in order."""
        found: dict[str, list[Sublayer]] = {}
        for sublayer in self.sublayers:
            found.setdefault(sublayer.unit, []).append(sublayer)
        return found


def scheme_of(config: RunConfig, devices: int) -> Scheme:
    """Of a recipe; nothing is compiled.

    Raises:
        InputError: the mesh does not fit the devices, or the model or the batch do not fit the mesh.
    """
    mesh, rules = config.mesh.resolve(devices), config.sharding.build()
    whole = {"loss_chunks": 1} if isinstance(config.model, TokenModelConfig) else {}
    model = dataclasses.replace(config.model, remat="none", **whole)
    abstract = abstract_model(model)
    axes, shapes = flatten(logical_axes_of(abstract)), flatten(parameters_of(abstract))
    moment_bytes, in_float32 = _moment_bytes(config.optimizer, model), float32_parameters(abstract)
    weights: dict[str, Weight] = {}
    for name, leaf in shapes.items():
        own = rules.of(name)
        spec = own.spec(axes[name], leaf.shape, mesh, kind="parameter", array=f"parameter {name}")
        used, gathered = [], []
        # Experts' weights are used as they are laid out, but for what FSDP shares of them.
        of_experts = "experts" in axes[name]
        for logical, entry in zip(axes[name], axes_per_dimension(spec, len(leaf.shape)), strict=True):
            for axis in entry:
                if axis in own.mesh_axes(logical) or (of_experts and logical != "embed"):
                    used.append(axis)
                else:
                    gathered.append(axis)
        elements = math.prod(leaf.shape)
        weights[name] = Weight(
            name=name,
            axes=axes[name],
            elements=elements,
            resident=elements // math.prod(mesh[axis] for axis in used),
            split_over=tuple(used),
            gathered_over=tuple(gathered),
            gather_size=math.prod(mesh[axis] for axis in gathered),
            moment_bytes=moment_bytes[name],
            float32=name in in_float32,
        )
    embed = _embed(weights, shapes)
    training, batch_shards = config.training, math.prod(mesh[axis] for axis in rules.mesh_axes("batch"))
    if training.batch_size % (batch_shards * training.microbatches):
        raise InputError(
            f"training.batch_size = {training.batch_size} does not divide over {batch_shards} shares of rows "
            f"in {training.microbatches} microbatches"
        )
    arrays = config.data.arrays(training.batch_size)
    for name, array in arrays.items():
        rules.spec(array.axes, array.shape, mesh, array=f"batch array '{name}'")
    rows, longest = config.model.size(arrays)
    rows //= training.microbatches
    itemsize = jnp.dtype(config.model.compute_dtype).itemsize
    of_stacks: dict[str, Lengths] = config.model.lengths(arrays)
    sequence_parallel = config.sharding.sequence_parallel and mesh["tensor"] > 1

    def on_device(stack: str, lengths: Lengths) -> int:
        own = rules.of(stack)
        of_rows, of_tokens = (
            math.prod(mesh[axis] for axis in own.mesh_axes(name)) for name in ("batch", "sequence")
        )
        return rows * lengths.rows // of_rows * (lengths.sequence // of_tokens)

    sublayers = []
    for stack_path, stack in stacks_of(abstract).items():
        lengths = of_stacks.get(stack_path, Lengths(longest))
        table = rules.of(stack_path)
        of_stack = rows * lengths.rows, lengths.sequence, lengths.memory
        step = StepOnMesh(*of_stack, mesh, table, itemsize)
        tokens = on_device(stack_path, lengths)
        between = "tensor" in table.mesh_axes("residual_sequence")
        for path, (sublayer, repeats) in sublayers_of(stack).items():
            own = {n: w for n, w in weights.items() if n.startswith(f"{stack_path}.{path}.")}
            width = _embed(own, shapes) or embed
            sublayers.append(
                Sublayer(
                    weights=tuple(own.values()),
                    repeats=repeats,
                    unit=f"{stack_path}.{unit_of(path)}",
                    work=sublayer.mixer.work(width, step),
                    tensor_parallel=mesh["tensor"] > 1
                    and any(w.resident < w.elements for w in own.values() if not w.of_some_tokens),
                    tokens=tokens,
                    residual_tokens=tokens / (mesh["tensor"] if between else 1),
                    embed=width,
                )
            )
    entering = of_stacks or {"": Lengths(longest)}
    inside = {weight.name for sublayer in sublayers for weight in sublayer.weights}
    outside = [weight for name, weight in weights.items() if name not in inside]

    def is_table(weight: Weight) -> bool:
        return "vocab" in weight.axes and not weight.is_vector

    return Scheme(
        mesh=mesh,
        sublayers=tuple(sublayers),
        tables=tuple(w for w in outside if is_table(w)),
        others=tuple(w for w in outside if not is_table(w)),
        embed=embed,
        tokens=on_device(*list(entering.items())[-1]),
        looked_up=sum(on_device(stack, lengths) for stack, lengths in entering.items())
        / (mesh["tensor"] if sequence_parallel else 1),
        microbatches=training.microbatches,
        sequence_parallel=sequence_parallel,
        remat=config.model.remat,
        loss_chunks=config.model.loss_chunks if isinstance(config.model, TokenModelConfig) else 1,
        replicas=replica_axis(
            config.model, mesh, rules, microbatches=training.microbatches, zero1=training.zero1
        ),
        dtype_bytes=itemsize,
        exchanges=config.model.exchanges(StepOnMesh(rows, longest, 0, mesh, rules, itemsize)),
    )


def _embed(weights: Mapping[str, Weight], shapes: Mapping[str, jax.ShapeDtypeStruct]) -> int:
    """Features of the residual stream that they belong to; 0 where none of them says."""
    sizes = (shapes[n].shape[w.axes.index("embed")] for n, w in weights.items() if "embed" in w.axes)
    return next(sizes, 0)


@functools.lru_cache(maxsize=4)
def _moment_bytes(optimizer: OptimizerConfig, model: ModelConfig) -> dict[str, int]:
    moments = moments_of(optimizer, abstract_model(model))
    return {name: sum(leaf.dtype.itemsize for leaf in leaves) for name, leaves in moments.items()}
