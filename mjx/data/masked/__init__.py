"""Samples of sentences of which some tokens are hidden, as Megatron's masked datasets make them: `tokens.py`
for encoders, `spans.py` for encoder-decoders."""
