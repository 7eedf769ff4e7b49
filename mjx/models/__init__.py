"""The model families, and the one place that lists them."""

FAMILIES = {
    "gpt": "mjx.models.gpt",
    "mamba": "mjx.models.mamba",
    "bert": "mjx.models.bert",
    "t5": "mjx.models.t5",
    "retro": "mjx.models.retro",
    "vision": "mjx.models.vision",
    "multimodal": "mjx.models.multimodal",
}
"""Family → its package, whose `FAMILY` says what there is of it (`mjx.models.family.Family`)."""
