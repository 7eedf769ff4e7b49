"""What a model is made of that is a stack of sub-layers, whatever enters it and is made of its output."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp

from mjx.batch import BatchArrays, size_of
from mjx.bounds import check_scale
from mjx.errors import InputError
from mjx.models.common.dropout import check_rate
from mjx.models.common.norm import NormConfig
from mjx.models.common.pattern import Lengths, MixerConfig, StepOnMesh, SublayerConfig, places
from mjx.models.family import ModelConfig
from mjx.sharding import current_rules, mesh_shape


@dataclasses.dataclass(frozen=True, kw_only=True)
class StackedConfig(ModelConfig):
    """A stack of sub-layers: its width, its pattern, and what plans ask of them."""

    stack_name: ClassVar[str] = "decoder"
    """The stack's name in parameter paths."""
    training_choices: ClassVar[tuple[str, ...]] = ("dtype", "dropout", "init_std", "remat")

    hidden_size: int
    """Features of the residual stream."""
    dropout: float = 0.0
    """On what enters the stack and on what each sub-layer adds to the residual stream."""
    init_std: float = 0.02
    """Standard deviation of the initial weights; projections back into the residual stream get
    init_std / √(number of sub-layers) (Radford et al. 2019)."""

    def __post_init__(self):
        if self.hidden_size < 1:
            raise InputError(f"model.hidden_size = {self.hidden_size} must be positive")
        check_scale("model.init_std", self.init_std)
        check_rate("model.dropout", self.dropout)

    def sublayers(self) -> tuple[SublayerConfig, ...]:
        """The family's pattern; `pattern` is the same, written once."""
        raise NotImplementedError(type(self))

    @property
    def final_norm(self) -> NormConfig | None:
        """Behind the stack; None: the stream is normed already, or is not to be."""
        raise NotImplementedError(type(self))

    @functools.cached_property
    def pattern(self) -> tuple[SublayerConfig, ...]:
        """The sub-layers of the stack, in order."""
        return self.sublayers()

    @functools.cached_property
    def places(self) -> tuple[tuple[str, int], ...]:
        """Where each sub-layer's parameters are: (path, index on their `layers` axis)."""
        return self.places_of(self.stack_name)

    def places_of(self, stack: str) -> tuple[tuple[str, int], ...]:
        """As `places`, of the stack of this name."""
        return tuple((f"{stack}.{path}", index) for path, index in places(self.patterns[stack]))

    @property
    def patterns(self) -> Mapping[str, tuple[SublayerConfig, ...]]:
        """Of every stack, by its name."""
        return {self.stack_name: self.pattern}

    @property
    def rows_apart(self) -> bool:
        return all(mixer.rows_apart for mixer in self._mixers)

    @property
    def output_std(self) -> float:
        """Of projections back into the residual stream."""
        return self.init_std / math.sqrt(len(self.pattern))

    def num_active_parameters(self) -> int:
        """Those that a token uses, tables counted whole (gpt-oss's card leaves the token table out)."""
        sublayers = (sublayer for pattern in self.patterns.values() for sublayer in pattern)
        idle = sum(sublayer.mixer.idle_parameters(self.hidden_size) for sublayer in sublayers)
        return self.num_parameters() - idle

    def lengths(self, arrays: BatchArrays) -> dict[str, Lengths]:
        """Tokens of a row in each stack."""
        raise NotImplementedError(type(self))

    def flops(self, arrays: BatchArrays) -> float:
        rows, _ = size_of(arrays)
        lengths, of_row = self.lengths(arrays), 0.0
        for stack, pattern in self.patterns.items():
            of_token = (s.mixer.flops_per_token(self.hidden_size, lengths[stack]) for s in pattern)
            of_row += lengths[stack].rows * lengths[stack].sequence * sum(of_token)
        return 3 * rows * of_row

    def decided(self, arrays: BatchArrays) -> tuple[str, ...]:
        rows, _ = size_of(arrays)
        itemsize = jnp.dtype(self.compute_dtype).itemsize
        said = []
        for stack, lengths in self.lengths(arrays).items():
            of_stack = rows * lengths.rows, lengths.sequence, lengths.memory
            step = StepOnMesh(*of_stack, mesh_shape(), current_rules(), itemsize)
            mixers = dict.fromkeys(sublayer.mixer for sublayer in self.patterns[stack])
            said += [mixer.work(self.hidden_size, step).said for mixer in mixers]
        return tuple(dict.fromkeys(sentence for sentence in said if sentence))

    def check_devices(self) -> None:
        for mixer in self._mixers:
            mixer.check_devices(self.hidden_size)

    @property
    def _mixers(self) -> tuple[MixerConfig, ...]:
        """Each once."""
        patterns = self.patterns.values()
        return tuple(dict.fromkeys(sublayer.mixer for pattern in patterns for sublayer in pattern))
