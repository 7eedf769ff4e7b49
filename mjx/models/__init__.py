"""The model families, and the one place that lists them."""

FAMILIES = {
    "gpt": "mjx.models.gpt",
}
"""Family → its package, whose `FAMILY` says what there is of it (`mjx.models.family.Family`)."""
