"""The arguments of an op: what they have to look like, said in a sentence before anything is traced."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from mjx.errors import InputError


def check_shapes(op: str, arguments: Mapping[str, tuple[Array | None, str]]) -> dict[str, int]:
    """The size of each named axis. `arguments`: name → (array, its axes in words); None is left out.

    An axis has the size that the first argument with it gives, and every other has to agree; a word that
    is a number is a fixed size. Raises InputError with the shapes.
    """
    sizes: dict[str, int] = {}
    seen: list[str] = []
    for name, (array, axes) in arguments.items():
        if array is None:
            continue
        words = axes.split()
        wanted = ", ".join(f"{word} = {sizes[word]}" if word in sizes else word for word in words)
        fits = len(words) == array.ndim and all(
            size > 0 and size == sizes.get(word, size) for word, size in zip(words, array.shape, strict=True)
        )
        if not fits:
            others = f", given {' and '.join(seen)}" if seen else ""
            raise InputError(
                f"{op}: {name} has shape {array.shape} and has to be [{wanted}], none empty{others}"
            )
        sizes.update(zip(words, array.shape, strict=True))
        seen.append(f"{name} {array.shape}")
    return sizes


def check_dtypes(
    op: str,
    *,
    same: Mapping[str, Array | None],
    floating: Mapping[str, Array | None],
    integer: Mapping[str, Array | None],
) -> None:
    """Those of `same` have one floating dtype, those of `floating` any; those of `integer` are integers."""
    given = {name: array.dtype for name, array in (*same.items(), *floating.items()) if array is not None}
    for name, dtype in given.items():
        if not jnp.issubdtype(dtype, jnp.floating):
            raise InputError(f"{op}: {name} is {dtype} and has to be a floating type, such as bfloat16")
    first = next(iter(same))
    for name in same:
        if name in given and given[name] != given[first]:
            raise InputError(
                f"{op}: {name} is {given[name]} and {first} is {given[first]}, "
                f"but {', '.join(same)} have to be of one type"
            )
    for name, array in integer.items():
        if array is not None and not jnp.issubdtype(array.dtype, jnp.integer):
            raise InputError(f"{op}: {name} is {array.dtype} and has to be an integer type")


def time_step(
    dt: Float[Array, "..."], bias: Float[Array, "..."] | None, softplus: bool, dtype: DTypeLike
) -> Float[Array, "..."]:
    """The step that a scan takes, from what it is given."""
    dt = dt.astype(dtype)
    if bias is not None:
        dt = dt + bias.astype(dtype)
    return jax.nn.softplus(dt) if softplus else dt
