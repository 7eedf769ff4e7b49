"""What the tables of other libraries' configs of decoder-only models have in common."""

import dataclasses
from typing import Any

from mjx.models.common.moe import DispatchConfig, MoEConfig, RouterConfig
from mjx.models.gpt.config import GPTConfig
from mjx.models.interop.config_map import Key
from mjx.models.interop.layers import split_layers


@dataclasses.dataclass(frozen=True)
class AttentionKey(Key):
    """A size of attention, which is written even where ours leaves it to follow from other sizes."""

    def theirs(self, config: GPTConfig) -> dict[str, Any]:
        attention = config.attention.resolve(config.hidden_size)
        return super().theirs(dataclasses.replace(config, attention=attention))


def window_layers(config: GPTConfig) -> tuple[bool, ...]:
    """Which layers have a window."""
    if config.attention.window is None:
        return (False,) * config.num_layers
    return spread(config.window_pattern, config.num_layers)


def spread(pattern: tuple[bool, ...], number: int) -> tuple[bool, ...]:
    """A pattern, repeated over so many layers."""
    return tuple(pattern[layer % len(pattern)] for layer in range(number))


def shortest(pattern: tuple[bool, ...]) -> tuple[bool, ...]:
    """The shortest one whose repetition is this."""
    lengths = range(1, len(pattern) + 1)
    return next(pattern[:n] for n in lengths if spread(pattern[:n], len(pattern)) == pattern)


def canonical(config: GPTConfig) -> GPTConfig:
    """One spelling for all configs of the same model, without what only training chooses."""
    attention = config.attention.resolve(config.hidden_size)
    windowed = window_layers(config)
    rotated = spread(config.rope_pattern, config.num_layers)
    attention = dataclasses.replace(
        attention,
        scale=_shortened(attention.scale or attention.dims[2] ** -0.5),
        window=attention.window if any(windowed) else None,
        dropout=0.0,
        implementation="auto",
    )
    local = config.window_rope if attention.window is not None else None
    dense, routed = split_layers(config.moe_layers)
    return dataclasses.replace(
        config,
        attention=attention,
        mlp=None if all(config.moe_layers) else config.mlp,
        moe=canonical_moe(config.moe) if any(config.moe_layers) else None,
        moe_pattern=routed if any(config.moe_layers) else (True,),
        dense_layers=dense if any(config.moe_layers) else 0,
        window_pattern=shortest(windowed) if any(windowed) else (True,),
        rope_pattern=shortest(rotated) if attention.rope is not None else (True,),
        window_rope=None if local == attention.rope else local,
        embedding_scale=_shortened(config.embedding_scale),
        **_TRAINING_DEFAULTS,
    )


def canonical_moe(moe: MoEConfig | None) -> MoEConfig | None:
    """Without what only training chooses."""
    if moe is None:
        return None
    none = RouterConfig()
    chosen = ("jitter", "z_loss", "load_balancing_loss", "sequence_load_balancing_loss")
    chosen = (*chosen, "global_load_balancing_loss", "sinkhorn")
    router = dataclasses.replace(moe.router, **{name: getattr(none, name) for name in chosen})
    return dataclasses.replace(
        moe,
        router=router,
        capacity_factor=None,
        drop_by="probability",
        pad_to_capacity=False,
        dispatch=DispatchConfig(),
    )


def _shortened(value: float) -> float:
    """Without the last digits, in which a root and its square differ."""
    return float(f"{value:.11g}")


_TRAINING_DEFAULTS = {
    field.name: field.default
    for field in dataclasses.fields(GPTConfig)
    if field.name in GPTConfig.training_choices
}
