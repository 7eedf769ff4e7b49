"""The pattern of a stack: its sub-layers in order, what repeats in them, and where their parameters are."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import jax
from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from mjx.bounds import check_scale
from mjx.errors import InputError
from mjx.models.common.context import Shared
from mjx.models.common.norm import NormConfig
from mjx.models.report import Statistic
from mjx.sharding import Rules
from mjx.trees import Tree


class Mixed(NamedTuple):
    """What a mixer makes of the residual stream."""

    y: Float[Array, "batch residual_sequence embed"]
    """Joins the residual stream."""
    cache: Any = None
    """With the new tokens; None where none was given."""
    losses: Mapping[str, Float[Array, ""]] = {}
    """Added to the loss: each a mean over this part of the batch, its coefficient in it."""
    statistics: Mapping[str, Statistic] = {}


class CacheSizes(NamedTuple):
    """What caches are made for."""

    batch: int
    slots: int
    """Tokens of a row."""
    memory: int = 0
    """Tokens of a row's `Memory`."""


class Lengths(NamedTuple):
    """Tokens of a row, as FLOPs depend on them."""

    sequence: int
    memory: int = 0
    rows: int = 1
    """Rows of the stack for each of the batch: of what is read apart."""


class StepOnMesh(NamedTuple):
    """A microbatch on a mesh, as plans see it without running it."""

    rows: int
    sequence: int
    """Tokens of a row."""
    memory: int
    """Tokens of a row's `Memory`."""
    sizes: Mapping[str, int]
    """Mesh axis → devices."""
    rules: Rules
    itemsize: int
    """Bytes of a number of the compute dtype."""


EXCHANGE = "exchange."
"""What a part of an operation's name begins with where that is a collective of an `Exchange`."""


class Exchange(NamedTuple):
    """Bytes that a device sends along some mesh axes for a layer and microbatch, in each pass."""

    name: str
    """What goes there; what sends it does so within `exchanging(name)`."""
    axes: tuple[str, ...]
    forward: float
    recompute: float
    """Where the backward pass computes the layer again."""
    backward: float


@contextlib.contextmanager
def exchanging(name: str) -> Iterator[None]:
    """Within it, or in a function that it decorates, collectives are those of the `Exchange` of this name."""
    with jax.named_scope(f"{EXCHANGE}{name}"):
        yield


class Work(NamedTuple):
    """What a layer does on one device besides products of every token with its weights."""

    exchanges: tuple[Exchange, ...] = ()
    kept: float = 0.0
    """Numbers that wait for the backward pass."""
    between: float = 0.0
    """Numbers that are there while it is differentiated."""
    flops: float = 0.0
    """Of products in loops whose length the program does not know, forward."""
    said: str = ""
    """What was decided by the mesh, and why."""


class MixerConfig:
    """What a sub-layer is made of: attention, an MLP, …; the base of a frozen dataclass.

    `name`, `build` and `flops_per_token` are all that a mixer needs to have.
    """

    name: ClassVar[str]
    """The mixer's name in parameter paths."""
    rows_apart: ClassVar[bool] = True
    """False: what it makes of a row, its losses or its statistics depend on the batch's other rows, as means
    and the balance of experts do. Then nothing of a step is computed by each replica for itself."""

    @property
    def shared(self) -> tuple[Shared, ...]:
        """What the stack makes once for all of its layers, read as `context.table(shared)`."""
        return ()

    def build(self, embed: int, *, std: float, output_std: float, rngs: nnx.Rngs) -> Callable[..., Mixed]:
        """The module: `(x, context, cache) → Mixed`."""
        raise NotImplementedError(type(self))

    def flops_per_token(self, embed: int, lengths: Lengths) -> float:
        """Of the forward pass's matrix products, a multiply-add as two."""
        raise NotImplementedError(type(self))

    def work(self, embed: int, step: StepOnMesh) -> Work:
        """Of closed forms: what plans of a training step could not know from the weights' shapes."""
        return Work()

    def check_devices(self, embed: int) -> None:
        """Raise `InputError` if the devices of the mesh in force get something wrong that this needs."""

    def idle_parameters(self, embed: int) -> int:
        """Those that a token leaves unused: of the experts that it does not take."""
        return 0

    def init_cache(self, sizes: CacheSizes, dtype: DTypeLike) -> Any:
        """An empty cache for decoding; None for none."""
        return None

    def after_step(self, parameters: Tree, statistics: Mapping[str, Array]) -> Tree:
        """One layer's parameters after what no gradient does to them, by the batch's statistics."""
        return parameters

    def summary(self, statistics: Mapping[str, Array]) -> Mapping[str, Statistic]:
        """What is logged of one layer's statistics, and how layers are put together; by itself nothing."""
        return {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResidualConfig:
    """How a sub-layer's output joins the residual stream."""

    scale: float = 1.0
    """Factor on the output (Granite's residual_multiplier)."""
    norm: NormConfig | None = None
    """On the stream behind the sum: x → norm(x + y), as in the first Transformers (Vaswani et al. 2017)."""
    normed: bool = False
    """The output joins what the mixer read, behind the sub-layer's norm, in the place of the stream."""

    def __post_init__(self):
        check_scale("residual.scale", self.scale)


NormPlacement = Literal["input", "output", "both", "residual", "stream"]
"""Where a sub-layer f has its norms. input: x + f(norm(x)). output: x + norm(f(x)), as OLMo 2. both: a norm
on either side of f, as Gemma 2. residual: norm(x + f(x)), as the first GPT and BERT; then there is none in
front of the head. stream: norm(x) + f(norm(x)), as Megatron's first BERT."""


def placed_norms(norm: NormConfig, placement: NormPlacement, scale: float = 1.0) -> dict[str, Any]:
    """What a `SublayerConfig` has of a model's one kind of norm; `scale` is that of the residual."""
    return {
        "norm": norm if placement in ("input", "both", "stream") else None,
        "output_norm": norm if placement in ("output", "both") else None,
        "residual": ResidualConfig(
            scale=scale, norm=norm if placement == "residual" else None, normed=placement == "stream"
        ),
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class SublayerConfig:
    """One residual sub-layer:
    `residual.norm(x + residual.scale · dropout(output_gain · output_norm(mixer(input_scale · norm(x)))))`."""

    mixer: MixerConfig
    norm: NormConfig | None
    """On what the mixer reads; null: it reads the residual stream as it is."""
    output_norm: NormConfig | None = None
    """On the mixer's output, before it joins the residual stream (OLMo 2; with `norm` too: Gemma 2)."""
    output_gain: float | None = None
    """What a learned factor on each feature of the output begins as (LayerScale, Touvron et al. 2021); null:
    there is none."""
    residual: ResidualConfig = ResidualConfig()
    """How the output joins the residual stream."""
    parallel: bool = False
    """Read the residual stream that the sub-layer in front read, not what that one made of it (GPT-J)."""
    shares_norm: bool = False
    """Read it behind the norm of the sub-layer in front, with none of its own: one norm for both."""
    input_scale: float = 1.0
    """Factor on what the mixer reads, behind the norm."""
    dropout: float = 0.0
    """On the output, before it joins the residual stream."""
    aside: bool = False
    """Add the output to what the next sub-layer reads, and not to the residual stream (Zamba)."""

    def __post_init__(self):
        if self.shares_norm and not (self.parallel and self.norm is None):
            raise InputError(
                "a sub-layer with shares_norm = true must be parallel, without a norm of its own"
            )
        check_scale("input_scale", self.input_scale)
        if self.output_gain is not None:
            check_scale("output_gain", self.output_gain, ", or null for none")
        if self.aside and self.residual.norm is not None:
            raise InputError(
                "a sub-layer with aside = true adds nothing to the stream that residual.norm is of"
            )


@dataclasses.dataclass(frozen=True)
class Segment:
    """A unit of sub-layers that is repeated."""

    unit: tuple[SublayerConfig, ...]
    repeats: int


def find_segments(sublayers: tuple[SublayerConfig, ...]) -> tuple[Segment, ...]:
    """The pattern as repeated units, such that as few sub-layers as possible are traced.

    `*-*-*-` is one unit `*-` three times; DeepSeek's `*-` × 3, `*E` × 58 are two segments. Among equal
    ways it takes the one with the fewest segments. A sub-layer and those parallel to it stay together, and so
    do one aside and that which reads it.

    Raises:
        InputError: the first sub-layer is parallel, to nothing, or the last aside, of nothing.
    """
    groups = _bound_groups(sublayers)
    ids = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    word = [ids[group] for group in groups]
    starts = [0, *itertools.accumulate(map(len, groups))]
    # best[i]: the cheapest way to write word[i:], as (sub-layers traced, segments, unit, repeats).
    best: list[tuple[int, int, int, int]] = [(0, 0, 0, 0)] * (len(word) + 1)
    for start in range(len(word) - 1, -1, -1):
        options = []
        for unit in range(1, len(word) - start + 1):
            repeats = 1
            while True:
                rest = best[start + unit * repeats]
                traced = starts[start + unit] - starts[start]
                options.append((traced + rest[0], 1 + rest[1], unit, repeats))
                begin = start + unit * repeats
                if word[begin : begin + unit] != word[start : start + unit]:
                    break
                repeats += 1
            if unit * repeats >= len(word) - start and repeats > 1:
                break
        best[start] = min(options)
    segments, start = [], 0
    while start < len(word):
        _, _, unit, repeats = best[start]
        segments.append(Segment(sublayers[starts[start] : starts[start + unit]], repeats))
        start += unit * repeats
    return tuple(segments)


def _bound_groups(sublayers: tuple[SublayerConfig, ...]) -> list[tuple[SublayerConfig, ...]]:
    """Each sub-layer that reads the residual stream alone, with those that read the same or what it made."""
    if sublayers and sublayers[0].parallel:
        raise InputError("the first sub-layer of a stack has parallel = true, but nothing is in front of it")
    if sublayers and sublayers[-1].aside:
        raise InputError("the last sub-layer of a stack has aside = true, but nothing behind it reads that")
    bound = [sublayer.parallel or before.aside for before, sublayer in itertools.pairwise(sublayers)]
    heads = [at for at, held in enumerate([False, *bound][: len(sublayers)]) if not held]
    return [sublayers[at:end] for at, end in itertools.pairwise([*heads, len(sublayers)])]


def places(sublayers: tuple[SublayerConfig, ...]) -> tuple[tuple[str, int], ...]:
    """Where each sub-layer's parameters are: (path within the stack, index on their `layers` axis).

    The path is `segments.S.P`, of the sub-layer at place P in the unit of segment S. It is a checkpoint's
    layout, and written nowhere else.
    """
    found = []
    for number, segment in enumerate(find_segments(sublayers)):
        for repeat in range(segment.repeats):
            found += [(f"segments.{number}.{place}", repeat) for place in range(len(segment.unit))]
    return tuple(found)
