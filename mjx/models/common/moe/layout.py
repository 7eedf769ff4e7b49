"""Where a mixture's tokens and experts are on the mesh in force."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from jax.sharding import PartitionSpec

from mjx.models.common.moe.experts import AXES, Weights
from mjx.sharding import Rules, axes_per_dimension
from mjx.sharding.constrain import current_rules, mesh_shape

Axes = tuple[str, ...]
_TOKENS = ("batch", "residual_sequence", "embed")


class Layout(NamedTuple):
    """The mesh axes that split something, in the mesh's order; those of size 1 are left out."""

    sizes: dict[str, int]
    tokens: PartitionSpec
    """Of the residual stream."""
    weights: Any
    """`Weights`, of each its partition."""
    owners: Axes
    """Split the experts: each device has some whole ones, or, with `hidden`, parts of them."""
    hidden: Axes
    """Split the experts' hidden features."""
    shares: Axes
    """Split the features that experts read, of the weights alone: FSDP."""

    @property
    def token_axes(self) -> Axes:
        """Split the tokens."""
        return tuple(axis for axes in axes_per_dimension(self.tokens, 3) for axis in axes)

    def size(self, axes: Axes) -> int:
        """Devices along these."""
        return math.prod(self.sizes[axis] for axis in axes)

    def ordered(self, axes: set[str]) -> Axes:
        """In the mesh's order."""
        return tuple(axis for axis in self.sizes if axis in axes)


def layout_of(
    shape: tuple[int, ...],
    weights: Any,
    *,
    sizes: Mapping[str, int] | None = None,
    rules: Rules | None = None,
) -> Layout:
    """For a residual stream of this shape, and `Weights` (arrays, or their shapes).

    `sizes` and `rules` None: of the mesh in force.

    Raises:
        InputError: the experts, or their features, cannot be laid out so.
    """
    rules = current_rules() if rules is None else rules
    sizes = {axis: size for axis, size in (sizes or mesh_shape()).items() if size > 1}
    specs = {
        name: None
        if array is None
        else rules.spec(AXES[name], array.shape, sizes, kind="parameter", array=f"the experts' {name}")
        for name, array in weights._asdict().items()
    }
    owners, shares, hidden = axes_per_dimension(specs["up"], 3)  # type: ignore[arg-type]
    tokens = rules.spec(_TOKENS, shape, sizes, array="the tokens that experts read")
    return Layout(sizes, tokens, Weights(**specs), owners, hidden, shares)  # type: ignore[arg-type]


def owners_of(weights: Any) -> Axes:
    """The axes of the mesh in force that split the experts, of `Weights` (arrays, or their shapes)."""
    sizes = {axis: size for axis, size in mesh_shape().items() if size > 1}
    spec = current_rules().spec(AXES["up"], weights.up.shape, sizes, kind="parameter")
    return axes_per_dimension(spec, 3)[0]


def axis_of(axes: Axes) -> str | Axes:
    """What `jax.lax`'s collectives take."""
    return axes[0] if len(axes) == 1 else axes
