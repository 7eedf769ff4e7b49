"""The model families, and the one place that lists them."""

FAMILIES = {
    "gpt": "mjx.models.gpt",
    "mamba": "mjx.models.mamba",
    "bert": "mjx.models.bert",
    "t5": "mjx.models.t5",
    "retro": "mjx.models.retro",
    "vision": "mjx.models.vision",
    "multimodal": "mjx.models.multimodal",
    "dual_encoder": "mjx.models.dual_encoder",
}
"""Family → its package, whose `FAMILY` says what there is of it (`mjx.models.family.Family`)."""
