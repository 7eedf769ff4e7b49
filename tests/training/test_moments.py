"""What the optimizer keeps, as plans and `mjx explain` say it, is what a training state holds."""

import math

import jax
import pytest

from mjx.batch import token_batch
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.parameter import logical_axes_of, parameters_of
from mjx.models.family import abstract_model
from mjx.models.gpt import GPTConfig
from mjx.training.moments import moments_of
from mjx.training.optimizer import OptimizerConfig
from mjx.training.parameter_kinds import parameter_kind
from mjx.training.trainer import Trainer
from mjx.trees import flatten

CONFIG = GPTConfig(
    num_layers=2,
    hidden_size=16,
    vocab_size=128,
    attention=AttentionConfig(num_heads=2),
    mlp=MLPConfig(features=32),
)
SETTINGS = [
    # name, moment_dtype → bytes of each element of a hidden matrix, and of any other parameter
    ("adamw", "float32", 4 + 4, 4 + 4),
    ("adamw", "bfloat16", 2 + 4, 2 + 4),
    ("sgd", "float32", 4, 4),
    ("sgd", "bfloat16", 2, 2),
    ("lion", "float32", 4, 4),
    ("muon", "float32", 4, 4 + 4),
    ("muon", "bfloat16", 2, 2 + 4),
]


@pytest.mark.parametrize(("name", "dtype", "of_matrix", "of_others"), SETTINGS)
def test_each_parameter_has_the_moments_of_its_kind(name, dtype, of_matrix, of_others):
    model = abstract_model(CONFIG)
    moments = moments_of(OptimizerConfig(name=name, moment_dtype=dtype), model)
    shapes, axes = flatten(parameters_of(model)), flatten(logical_axes_of(model))
    assert moments.keys() == shapes.keys()
    kinds = {path: parameter_kind(names) for path, names in axes.items()}
    assert set(kinds.values()) == {"hidden", "table", "vector"}
    for path, leaves in moments.items():
        assert {leaf.shape for leaf in leaves} == {shapes[path].shape}
        expected = of_matrix if kinds[path] == "hidden" else of_others
        assert sum(leaf.dtype.itemsize for leaf in leaves) == expected


@pytest.mark.parametrize(("name", "dtype", "of_matrix", "of_others"), SETTINGS)
def test_they_are_all_of_a_state_but_its_counters(name, dtype, of_matrix, of_others):
    optimizer = OptimizerConfig(name=name, moment_dtype=dtype)
    trainer = Trainer(CONFIG, steps=1, batch=token_batch(rows=8, sequence=8), optimizer=optimizer)
    state = [leaf for leaf in jax.tree.leaves(trainer.layout.shapes.optimizer) if leaf.shape]
    moments = [leaf for leaves in moments_of(optimizer, trainer.model).values() for leaf in leaves]

    def size(leaves):
        return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)

    assert size(moments) == size(state)
    assert len(moments) == len(state)
