"""What the tables of other libraries' configs of encoders have in common."""

import dataclasses

from mjx.models.bert.config import BertConfig
from mjx.models.interop.canonical import canonical_attention, shortest, training_defaults, windowed


def canonical(config: BertConfig) -> BertConfig:
    """One spelling for all configs of the same model, without what only training chooses."""
    attention = canonical_attention(config.attention, config.hidden_size)
    has_window = windowed(attention, config.window_pattern, config.num_layers)
    window = attention.window if any(has_window) else None
    attention = dataclasses.replace(attention, window=window, causal=False)
    local = None if window is None else config.window_rope
    return dataclasses.replace(
        config,
        attention=attention,
        window_pattern=(True,) if window is None else shortest(has_window),
        window_rope=None if local == attention.rope else local,
        contrastive=None,  # it has no parameters
        pooling=config.pooling if config.contrastive is None and _reads_rows(config) else "first",
        **training_defaults(BertConfig),
    )


def _reads_rows(config: BertConfig) -> bool:
    return config.pooler or config.classes is not None
