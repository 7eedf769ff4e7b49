"""What the tables of other libraries' configs of encoder-decoders have in common."""

import dataclasses

from mjx.models.interop.canonical import canonical_attention, shortened, training_defaults
from mjx.models.t5.config import T5Config


def canonical(config: T5Config) -> T5Config:
    """One spelling for all configs of the same model, without what only training chooses."""
    layers = config.encoder_layers
    return dataclasses.replace(
        config,
        attention=dataclasses.replace(canonical_attention(config.attention, config.hidden_size), causal=True),
        encoder_layers=None if layers == config.num_layers else layers,
        embedding_scale=shortened(config.embedding_scale),
        logit_scale=shortened(config.logit_scale),
        **training_defaults(T5Config),
    )
