"""Which implementation computes each op."""

from collections.abc import Callable
from typing import Literal, get_args

from mjx.errors import InputError

Implementation = Literal["auto", "reference", "xla"]


def attention(implementation: Implementation) -> Callable:
    """The attention function of this name; `auto` is `xla`, which can do everything."""
    from mjx.kernels.flash_attention import reference, xla

    table = {"reference": reference.attention, "xla": xla.attention, "auto": xla.attention}
    if implementation not in table:
        raise InputError(
            f"attention.implementation = {implementation!r} is not known "
            f"(choose from {', '.join(get_args(Implementation))})"
        )
    return table[implementation]
