"""The model families, and the one place that lists them."""

FAMILIES = {
    "mamba": "mjx.models.mamba",
    "gpt": "mjx.models.gpt",
}
"""Family → its package, whose `FAMILY` says what there is of it (`mjx.models.family.Family`). Megatron's
settings are those of the first that they describe: a GPT's say nothing that others would not."""
