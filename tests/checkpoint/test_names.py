"""Names of arrays: the same for every container, and never two alike."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from mjx.checkpoint.names import ArrayType, check_same_arrays, named_leaves
from mjx.errors import InputError
from mjx.trees import nest


class Pair(NamedTuple):
    left: object
    right: object


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Holder:
    left: object
    right: object


def test_containers_do_not_matter_to_the_names():
    expected = {("left", "0"): 1.0, ("left", "1"): 2.0, ("right",): 3.0}
    assert named_leaves(Pair([1.0, 2.0], 3.0)) == expected
    assert named_leaves(Holder((1.0, 2.0), 3.0)) == expected
    assert named_leaves({"left": {0: 1.0, 1: 2.0}, "right": 3.0}) == expected
    assert named_leaves({"left": {"0": 1.0, "1": 2.0}, "right": 3.0}) == expected
    assert nest(expected) == {"left": {"0": 1.0, "1": 2.0}, "right": 3.0}


def test_a_flax_variable_is_the_array_it_holds_and_empty_states_have_no_names():
    params = nnx.split(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Param)[1]
    assert set(named_leaves(params)) == {("bias",), ("kernel",)}
    state = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9)).init(params)
    assert set(named_leaves(state)) == {("1", "0", "trace", "bias"), ("1", "0", "trace", "kernel")}


class Twins:
    """A container whose two children have one name."""


jax.tree_util.register_pytree_with_keys(
    Twins,
    lambda _: (
        ((jax.tree_util.DictKey("a"), {"0": 1.0}), (jax.tree_util.GetAttrKey("a"), [2.0])),
        None,
    ),
    lambda *_: Twins(),
)


def test_two_arrays_of_one_name_are_refused():
    with pytest.raises(ValueError, match=r"Two arrays .* have the name 'a.0'"):
        named_leaves(Twins())


def test_a_single_array_has_no_name():
    with pytest.raises(ValueError, match="single array"):
        named_leaves(jnp.zeros(3))


def types(**shapes: tuple[int, ...]) -> dict[tuple[str, ...], ArrayType]:
    return {tuple(name.split("__")): ArrayType(shape, "float32") for name, shape in shapes.items()}


def test_long_lists_are_counted_and_their_first_names_shown():
    wanted = types(**{f"params__w{i}": (2,) for i in range(12)})
    with pytest.raises(InputError) as caught:
        check_same_arrays({}, wanted, "The checkpoint runs/a/5")
    assert str(caught.value).startswith(
        "The checkpoint runs/a/5 holds another model than the config describes: "
        "12 parameters missing from it (params.w0, params.w1, params.w2, …). Nothing was read."
    )


def test_equal_arrays_are_accepted_in_any_order():
    saved = types(a=(1,), b=(2,))
    check_same_arrays(saved, dict(reversed(saved.items())), "x")


def test_only_floating_point_arrays_are_cast():
    floats, ints = {("w",): ArrayType((2,), "float32")}, {("w",): ArrayType((2,), "int32")}
    half = {("w",): ArrayType((2,), "bfloat16")}
    check_same_arrays(floats, half, "x", cast=True)
    for saved, wanted, cast in ((floats, half, False), (floats, ints, True), (ints, floats, True)):
        with pytest.raises(InputError, match="1 array of another shape or type"):
            check_same_arrays(saved, wanted, "x", cast=cast)
