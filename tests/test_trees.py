"""Trees of dicts and the names of their leaves."""

import typing

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from mjx.models.common.parameter import parameters_of
from mjx.trees import flatten, name_of, nest, read_yaml, unflatten


class State(typing.NamedTuple):
    params: typing.Any
    step: int


@pytest.mark.parametrize(
    ("tree", "names"),
    [
        ({"a": {"b": 1, "c": [2, 3]}}, [("a", "b"), ("a", "c", "0"), ("a", "c", "1")]),
        (State({"w": 1}, 2), [("params", "w"), ("step",)]),
        (nnx.List([nnx.Param(jnp.zeros(2))]), [("0",)]),
        ({"layer": nnx.Linear(2, 2, rngs=nnx.Rngs(0))}, [("layer", "bias"), ("layer", "kernel")]),
        ({"layer": nnx.state(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))}, [("layer", "bias"), ("layer", "kernel")]),
        ({"value": 1}, [("value",)]),
        ({"a": {"value": 1}}, [("a", "value")]),  # a dict's key is a name, a Variable's attribute is none
    ],
    ids=["nested", "dataclass", "list", "module", "state", "value", "nested value"],
)
def test_a_leaf_has_one_name_whatever_containers_hold_it(tree, names):
    assert [name_of(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]] == names


def test_flat_and_nested_trees_are_each_others_inverse():
    tree = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert flatten(tree) == {"a.b": 1, "a.c.d": 2, "e": 3}
    assert unflatten(flatten(tree)) == tree
    assert nest({("a", "b"): 1, ("a", "c", "d"): 2, ("e",): 3}) == tree


def test_a_models_parameters_have_the_names_that_jax_walks():
    model = nnx.List([nnx.Linear(2, 2, rngs=nnx.Rngs(0))])
    walked = [".".join(name_of(path)) for path, _ in jax.tree_util.tree_flatten_with_path(model)[0]]
    assert list(flatten(parameters_of(model))) == walked == ["0.bias", "0.kernel"]


def test_a_recipe_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "recipe.yaml").write_text("model: {family: ä}\n", encoding="utf-8-sig")
    assert read_yaml(tmp_path / "recipe.yaml") == {"model": {"family": "ä"}}
