"""What the tables of other libraries' configs of vision transformers have in common."""

import dataclasses

from mjx.models.interop.canonical import canonical_attention, training_defaults
from mjx.models.vision.config import VisionConfig


def canonical(config: VisionConfig) -> VisionConfig:
    """One spelling for all configs of the same model, without what only training chooses."""
    attention = dataclasses.replace(canonical_attention(config.attention, config.hidden_size), causal=False)
    learned = config.position_grid is not None
    return dataclasses.replace(
        config,
        attention=attention,
        class_positions=config.class_positions if learned else 0,
        position_resizing=config.position_resizing if learned else "bicubic",
        position_view=config.position_view if learned else "whole",
        layer_scale=None if config.layer_scale is None else 1.0,
        **training_defaults(VisionConfig),
    )
