"""Which implementation computes each op."""

from collections.abc import Callable
from typing import Literal, get_args

from mjx.errors import InputError

Implementation = Literal["auto", "reference"]


def attention(implementation: Implementation) -> Callable:
    """The attention function of this name; `auto` is the fastest that can do everything asked."""
    from mjx.kernels.flash_attention import reference

    table = {"reference": reference.attention, "auto": reference.attention}
    if implementation not in table:
        raise InputError(
            f"attention.implementation = {implementation!r} is not known "
            f"(choose from {', '.join(get_args(Implementation))})"
        )
    return table[implementation]
