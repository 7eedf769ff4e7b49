"""The rule table: which mesh axes each logical axis is laid out over."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from jax.sharding import PartitionSpec

from mjx.errors import InputError
from mjx.sharding.axes import LOGICAL_AXES, MESH_AXES
from mjx.words import nearest

Kind = Literal["parameter", "activation"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """One row of the table: where one logical axis lives."""

    parameters: tuple[str, ...] = ()
    """Mesh axes over which this dimension of a parameter (and of its optimizer state) is split."""
    activations: tuple[str, ...] = ()
    """Mesh axes over which this dimension of an activation is split."""
    replicate_if_smaller: bool = False
    """A size below the number of shards is replicated instead of refused."""


def everywhere(*mesh_axes: str, replicate_if_smaller: bool = False) -> Rule:
    """A row whose parameters and activations are split alike."""
    return Rule(parameters=mesh_axes, activations=mesh_axes, replicate_if_smaller=replicate_if_smaller)


@dataclasses.dataclass(frozen=True)
class Rules:
    """The frozen table, one row per logical axis."""

    rows: Mapping[str, Rule]
    zigzag: bool = False
    """How the tokens of a row lie on devices that split them: see `ShardingConfig.zigzag`."""
    modules: Mapping[str, Mapping[str, Rule]] = dataclasses.field(default_factory=dict)
    """Rows that hold instead of `rows` inside of a module of the model, by its name in parameter paths."""

    def __post_init__(self):
        _check_rows(self.rows, "sharding.rules")
        for module, rows in self.modules.items():
            _check_rows(rows, f"sharding.modules.{module}")
        object.__setattr__(self, "rows", MappingProxyType(dict(self.rows)))
        object.__setattr__(self, "modules", MappingProxyType(dict(self.modules)))

    def without_tokens(self) -> "Rules":
        """The same tables, by which no row of tokens is split."""
        whole = {"sequence": Rule(), "residual_sequence": Rule()}
        modules = {module: {**rows, **whole} for module, rows in self.modules.items()}
        return Rules({**self.rows, **whole}, modules=modules)

    def of(self, path: str) -> "Rules":
        """The table by which a parameter of this path, or what a module of it makes, is laid out."""
        module = next((name for name in self.modules if path == name or path.startswith(f"{name}.")), None)
        return self if module is None else Rules({**self.rows, **self.modules[module]}, self.zigzag)

    def check_modules(self, modules: Sequence[str]) -> None:
        """Raise `InputError` if a table is of another module than these, which work within `inside`."""
        for module in self.modules:
            if module not in modules:
                there = f"those of this model are {', '.join(modules)}" if modules else "this model has none"
                raise InputError(
                    f"sharding.modules has a table for '{module}', which is no module that may have its own; "
                    f"{there}"
                )

    def mesh_axes(self, name: str, kind: Kind = "activation") -> tuple[str, ...]:
        """The mesh axes of one logical axis, whatever their sizes."""
        _check_name(name, "a lookup")
        rule = self.rows.get(name, Rule())
        return rule.parameters if kind == "parameter" else rule.activations

    def spec(
        self,
        names: Sequence[str | None],
        shape: Sequence[int],
        mesh_shape: Mapping[str, int],
        *,
        kind: Kind = "activation",
        array: str = "array",
    ) -> PartitionSpec:
        """The partition of one array; mesh axes of size 1 are left out.

        Raises:
            InputError: a name is unknown, the number of names is not the number of dimensions, two
                names of the array meet on one mesh axis, or a size does not divide. `array` is
                what the sentence calls the array.
        """
        if len(names) != len(shape):
            raise InputError(f"{array} has shape {tuple(shape)}, but {len(names)} axis names: {tuple(names)}")
        owner: dict[str, str] = {}
        entries = []
        for name, size in zip(names, shape, strict=True):
            if name is None:
                entries.append(None)
                continue
            _check_name(name, array)
            rule = self.rows.get(name, Rule())
            wanted = rule.parameters if kind == "parameter" else rule.activations
            axes = tuple(axis for axis in wanted if mesh_shape.get(axis, 1) > 1)
            shards = 1
            for axis in axes:
                shards *= mesh_shape[axis]
            if shards > 1 and rule.replicate_if_smaller and size < shards and shards % size == 0:
                axes, shards = (), 1
            if size % shards:
                raise InputError(_not_divisible(array, name, size, axes, mesh_shape, shards))
            for axis in axes:
                if axis in owner:
                    raise InputError(
                        f"{array}: the logical axes '{owner[axis]}' and '{name}' both live on the mesh axis "
                        f"'{axis}'; leave one of them whole, as sharding.rules.{name} = {{}} does, or set "
                        f"mesh.{axis}=1"
                    )
                owner[axis] = name
            entries.append(axes[0] if len(axes) == 1 else axes or None)
        while entries and entries[-1] is None:
            entries.pop()
        return PartitionSpec(*entries)


def axes_per_dimension(spec: PartitionSpec, dimensions: int) -> tuple[tuple[str, ...], ...]:
    """The mesh axes that split each dimension of an array."""
    entries = [*spec, *[None] * (dimensions - len(spec))]
    return tuple((entry,) if isinstance(entry, str) else tuple(entry or ()) for entry in entries)


def default_rules(
    *,
    sequence_parallel: bool = True,
    zigzag: bool = False,
    overrides: Mapping[str, Rule] | None = None,
    modules: Mapping[str, Mapping[str, Rule]] | None = None,
) -> Rules:
    """The layout of data, FSDP, tensor, sequence, context, expert and pipeline parallelism.

    Args:
        sequence_parallel: split the residual stream's tokens over `tensor` too, so that norms and
            dropout work on a share of the tokens (Korthikanti et al. 2022, section 4.2.2).
        zigzag: as `ShardingConfig.zigzag`.
        overrides: rows that replace the default ones.
        modules: as `ShardingConfig.modules`.
    """
    rows = {
        "batch": Rule(activations=("data", "fsdp", "expert")),
        "sequence": Rule(activations=("context",)),
        "residual_sequence": Rule(activations=("context", "tensor") if sequence_parallel else ("context",)),
        "embed": Rule(parameters=("fsdp",)),
        "streams": Rule(),
        "heads": everywhere("tensor"),
        "kv_heads": everywhere("tensor", replicate_if_smaller=True),
        "head_dim": Rule(),
        "mlp": everywhere("tensor"),
        "vocab": everywhere("tensor"),
        "positions": Rule(),
        "axes": Rule(),
        "pixels": Rule(),
        "made": Rule(),
        "chunks": Rule(activations=("context",)),
        "neighbours": Rule(),
        "retrieved": Rule(),
        "grid": Rule(),
        "channels": Rule(),
        "height": Rule(),
        "width": Rule(),
        "token_types": Rule(),
        "classes": Rule(),
        "buckets": Rule(),
        "inner": everywhere("tensor"),
        "groups": everywhere("tensor", replicate_if_smaller=True),
        "experts": everywhere("expert"),
        "expert_mlp": everywhere("tensor"),
        "expert_scores": Rule(),
        "latent": Rule(),
        "layers": Rule(),
        "stages": everywhere("pipeline"),
        "state": Rule(),
        "conv": Rule(),
    }
    return Rules({**rows, **(overrides or {})}, zigzag, modules or {})


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardingConfig:
    """How the mesh is used."""

    sequence_parallel: bool = True
    """Split the residual stream's tokens over `tensor` as well. Without effect when mesh.tensor is 1."""
    zigzag: bool = False
    """Where mesh.context splits rows of n tokens over d devices, give each two parts of n / 2d tokens, one
    as far from the begin as the other from the end: causal attention is then equal work on all. False:
    one part, in the devices' order."""
    rules: dict[str, Rule] = dataclasses.field(default_factory=dict)
    """Rows that replace those of the default table, e.g. `{embed: {parameters: [fsdp, context]}}`."""
    modules: dict[str, dict[str, Rule]] = dataclasses.field(default_factory=dict)
    """Rows that hold inside of one module of the model alone, by its name in parameter paths: an encoder that
    wants none of `tensor`, and more rows instead, is `{vision: {batch: {activations: [data, fsdp, expert,
    tensor]}, heads: {}, kv_heads: {}, mlp: {}, residual_sequence: {}}}`."""

    def __post_init__(self):
        self.build()

    def build(self) -> Rules:
        """The whole table."""
        return default_rules(
            sequence_parallel=self.sequence_parallel,
            zigzag=self.zigzag,
            overrides=self.rules,
            modules=self.modules,
        )


def _check_rows(rows: Mapping[str, Rule], where: str) -> None:
    for name, rule in rows.items():
        _check_name(name, "the rule table")
        for axis in (*rule.parameters, *rule.activations):
            if axis not in MESH_AXES:
                raise InputError(
                    f"{where}.{name} names the mesh axis '{axis}', which does not exist "
                    f"(choose from {', '.join(MESH_AXES)})"
                )


def _check_name(name: str, array: str) -> None:
    if name not in LOGICAL_AXES:
        raise InputError(
            f"{array} names the logical axis '{name}', which does not exist ({nearest(name, LOGICAL_AXES)})"
        )


def _not_divisible(
    array: str, name: str, size: int, axes: Sequence[str], mesh_shape: Mapping[str, int], shards: int
) -> str:
    product = " × ".join(f"{axis} {mesh_shape[axis]}" for axis in axes)
    sentence = f"{array}: the axis '{name}' of size {size} does not divide over {product} = {shards} shards"
    padded = -(-size // shards) * shards
    advice = {
        "vocab": f"pad the vocabulary to {padded} (model.vocab_divisor, a multiple of {shards})",
        "residual_sequence": f"use a sequence length that is a multiple of {shards}, "
        "or sharding.sequence_parallel=false",
        "batch": f"use a batch of {padded} rows or a smaller product of mesh.data, mesh.fsdp and mesh.expert",
    }.get(name)
    fitting = ", ".join(str(n) for n in range(1, shards + 1) if size % n == 0)
    return f"{sentence}; {advice or f'a shard count that does: {fitting}'}"
