"""One spelling for all configs of the same model: two that compute the same are equal."""

import dataclasses
from typing import Any

from mjx.models.common.attention import AttentionConfig
from mjx.models.common.moe import MoEConfig, RouterConfig
from mjx.models.family import ModelConfig


def split_layers(layers: tuple[bool, ...]) -> tuple[int, tuple[bool, ...]]:
    """`dense_layers` and `moe_pattern` of the layers that have experts."""
    dense = next((at for at, routed in enumerate(layers) if routed), len(layers))
    if all(layers[dense:]):
        return dense, (True,)
    lengths = range(1, len(layers) + 1)
    return 0, next(
        layers[:n] for n in lengths if all(layers[at] == layers[at % n] for at in range(len(layers)))
    )


def canonical_attention(attention: AttentionConfig, hidden_size: int) -> AttentionConfig:
    """Resolved, without what only training chooses."""
    attention = attention.resolve(hidden_size)
    scale = shortened(attention.scale or attention.dims[2] ** -0.5)
    return dataclasses.replace(attention, scale=scale, dropout=0.0, implementation="auto")


def canonical_moe(moe: MoEConfig | None) -> MoEConfig | None:
    """Without what only training chooses."""
    if moe is None:
        return None
    kept = [field.name for field in dataclasses.fields(RouterConfig)]
    kept = [name for name in kept if f"router.{name}" not in MoEConfig.training_choices]
    router = RouterConfig(**{name: getattr(moe.router, name) for name in kept})
    kept = [field.name for field in dataclasses.fields(MoEConfig) if field.name not in ("router", "dispatch")]
    kept = [name for name in kept if name not in MoEConfig.training_choices]
    return MoEConfig(router=router, **{name: getattr(moe, name) for name in kept})


def shortened(value: float) -> float:
    """Without the last digits, in which a root and its square differ."""
    return float(f"{value:.11g}")


def spread(pattern: tuple[bool, ...], number: int) -> tuple[bool, ...]:
    """A pattern, repeated over so many layers."""
    return tuple(pattern[layer % len(pattern)] for layer in range(number))


def shortest(pattern: tuple[bool, ...]) -> tuple[bool, ...]:
    """The shortest one whose repetition is this."""
    lengths = range(1, len(pattern) + 1)
    return next(pattern[:n] for n in lengths if spread(pattern[:n], len(pattern)) == pattern)


def windowed(attention: AttentionConfig, pattern: tuple[bool, ...], layers: int) -> tuple[bool, ...]:
    """Which layers have a window, where a `pattern` keeps it in some."""
    return (False,) * layers if attention.window is None else spread(pattern, layers)


def training_defaults(config: type[ModelConfig]) -> dict[str, Any]:
    """Fields that only training chooses, as they are where nothing is said."""
    fields = dataclasses.fields(config)
    return {field.name: field.default for field in fields if field.name in config.training_choices}
