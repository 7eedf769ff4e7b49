"""What the tables of other libraries' configs of decoder-only models have in common."""

import dataclasses

from mjx.models.gpt.config import GPTConfig
from mjx.models.interop.canonical import (
    canonical_attention,
    canonical_moe,
    shortened,
    shortest,
    split_layers,
    spread,
    training_defaults,
    windowed,
)


def window_layers(config: GPTConfig) -> tuple[bool, ...]:
    """Which layers have a window."""
    return windowed(config.attention, config.window_pattern, config.num_layers)


def canonical(config: GPTConfig) -> GPTConfig:
    """One spelling for all configs of the same model, without what only training chooses."""
    attention = canonical_attention(config.attention, config.hidden_size)
    has_window = window_layers(config)
    rotated = spread(config.rope_pattern, config.num_layers)
    attention = dataclasses.replace(
        attention,
        window=attention.window if any(has_window) else None,
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
        window_pattern=shortest(has_window) if any(has_window) else (True,),
        rope_pattern=shortest(rotated) if attention.rope is not None else (True,),
        window_rope=None if local == attention.rope else local,
        embedding_scale=shortened(config.embedding_scale),
        **training_defaults(GPTConfig),
    )
