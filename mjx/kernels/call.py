"""The front door of an op: which of its implementations computes a call."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from mjx.kernels.capability import Request, Table, choose, current_device


def implementation_of(
    op: str,
    table: Table,
    implementation: str,
    *,
    dtype: str,
    asked: Mapping[str, bool],
    sizes: Mapping[str, int],
) -> str:
    """The name of the one that computes a call here; `asked` says for each feature whether it is needed.

    Raises:
        InputError: the one that is named, or for `auto` every one, cannot do what is asked.
    """
    platform, compute_capability = current_device()
    request = Request(
        platform=platform,
        compute_capability=compute_capability,
        dtype=dtype,
        features=frozenset(name for name, wanted in asked.items() if wanted),
        sizes=sizes,
    )
    return choose(op, table, implementation, request)


def given(*arrays: Any) -> tuple[Any, ...]:
    """Each as a JAX array; None stays None."""
    return tuple(None if array is None else jnp.asarray(array) for array in arrays)
