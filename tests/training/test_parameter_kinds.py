import jax.numpy as jnp
import pytest

from mjx.sharding.axes import LOGICAL_AXES
from mjx.training.parameter_kinds import (
    OUTSIDE,
    OWNERS,
    SHARES,
    STACKED,
    MatrixDimensions,
    match_axes,
    matrix_dimensions,
    parameter_kind,
)

KINDS = [
    (("embed", "mlp"), "hidden"),
    (("layers", "embed", "heads", "head_dim"), "hidden"),
    (("layers", "heads", "head_dim", "embed"), "hidden"),
    (("stages", "layers", "embed", "kv_heads", "head_dim"), "hidden"),
    (("layers", "embed", "head_dim"), "hidden"),  # MLA's shared rotary key
    (("layers", "experts", "embed", "mlp"), "hidden"),
    (("layers", "embed", "experts"), "hidden"),  # a router
    (("layers", "inner", "embed"), "hidden"),
    (("vocab", "embed"), "table"),
    (("embed", "vocab"), "table"),
    (("positions", "embed"), "table"),
    (("layers", "inner", "conv"), "table"),
    (("conv", "conv", "embed"), "table"),
    (("embed",), "vector"),
    (("layers", "embed"), "vector"),  # a stacked norm
    (("layers", "heads", "head_dim"), "vector"),  # the bias of a query kernel
    (("streams", "embed", "heads", "head_dim"), "hidden"),  # a query kernel that reads two streams
    (("streams", "embed"), "vector"),  # the norm in front of it
    (("layers", "heads"), "vector"),  # sinks
    (("layers", "experts"), "vector"),  # a router's bias
    (("layers", "experts", "mlp"), "vector"),
    (("layers", "inner", "state"), "vector"),  # Mamba-1's A
    (("layers", "embed", "groups", "state"), "hidden"),  # what makes Mamba-2's B
    (("buckets", "heads"), "table"),  # relative positions
    (("vocab",), "vector"),
    ((), "vector"),
]


@pytest.mark.parametrize(("axes", "kind"), KINDS)
def test_the_kind_of_a_parameter_follows_from_its_axis_names(axes, kind):
    assert parameter_kind(axes) == kind


def test_every_axis_that_kinds_are_told_by_is_in_the_vocabulary():
    known = (*STACKED, *OWNERS, *SHARES, *OUTSIDE, *(name for axes, _ in KINDS for name in axes))
    assert set(known) <= set(LOGICAL_AXES)


def test_the_matrix_of_an_attention_kernel_joins_heads_with_head_dim():
    assert matrix_dimensions(("layers", "embed", "heads", "head_dim")) == MatrixDimensions((0,), (1,), (2, 3))
    assert matrix_dimensions(("streams", "embed", "latent")) == MatrixDimensions((), (0, 1), (2,))
    assert matrix_dimensions(("layers", "heads", "head_dim", "embed")) == MatrixDimensions((0,), (1, 2), (3,))
    assert matrix_dimensions(("layers", "experts", "embed", "mlp")) == MatrixDimensions((0, 1), (2,), (3,))


def test_axis_names_are_matched_leaf_by_leaf_and_mismatches_name_the_parameter():
    params = {"a": jnp.zeros((2, 3)), "b": {"c": jnp.zeros(3)}}
    axes = {"a": ("embed", "mlp"), "b": {"c": ("mlp",)}}
    assert match_axes(params, axes) == [("embed", "mlp"), ("mlp",)]
    with pytest.raises(ValueError, match=r"\['a'\] has shape \(2, 3\), but the axes \('embed',\)"):
        match_axes(params, axes | {"a": ("embed",)})
    with pytest.raises(ValueError, match=r"\['a'\] has an axis without a name"):
        match_axes(params, axes | {"a": (None, "mlp")})
    with pytest.raises(ValueError, match="2 parameters, but axis names for 1"):
        match_axes(params, {"a": ("embed", "mlp")})
