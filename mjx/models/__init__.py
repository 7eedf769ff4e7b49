"""The model families, and the one place that lists them."""

import importlib

from mjx.errors import InputError

FAMILIES = {
    "gpt": "mjx.models.gpt",
}
"""Family → the package whose `CONFIG` is its config class and whose `PUBLISHED` its known sizes."""


def load_family(name: str):
    """The package of a family.

    Raises:
        InputError: there is no such family.
    """
    if name not in FAMILIES:
        raise InputError(f"model.family = '{name}' is not known (choose from {', '.join(FAMILIES)})")
    return importlib.import_module(FAMILIES[name])
