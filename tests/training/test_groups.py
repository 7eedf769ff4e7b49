"""Groups of parameters: frozen ones stay, and rates and decays are the group's own."""

import jax
import numpy as np
import pytest

from mjx.batch import token_batch
from mjx.errors import InputError
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.gpt import GPTConfig
from mjx.sharding import MeshConfig, build_mesh
from mjx.training.groups import GroupConfig
from mjx.training.optimizer import OptimizerConfig
from mjx.training.schedule import ScheduleConfig
from mjx.training.trainer import Trainer
from mjx.trees import flatten

MODEL = GPTConfig(
    num_layers=2,
    hidden_size=16,
    vocab_size=32,
    attention=AttentionConfig(num_heads=2),
    mlp=MLPConfig(features=32),
)
BATCH = {
    "tokens": np.arange(64).reshape(8, 8) % 32,
    "labels": (np.arange(64).reshape(8, 8) + 1) % 32,
    "loss_mask": np.ones((8, 8)),
}


def trainer_of(groups, *, name="adamw", mesh=None, **options):
    """On one device, if nothing else is said."""
    optimizer = OptimizerConfig(
        name=name, groups={pattern: GroupConfig(**group) for pattern, group in groups.items()}, **options
    )
    schedule = ScheduleConfig(kind="constant", learning_rate=0.01, warmup_steps=0)
    batch = token_batch(rows=8, sequence=8)
    mesh = mesh or build_mesh(MeshConfig(), jax.devices()[:1])
    return Trainer(MODEL, steps=2, batch=batch, optimizer=optimizer, schedule=schedule, mesh=mesh)


def changes(groups, **options):
    """Path → how far one step moves each parameter."""
    trainer = trainer_of(groups, **options)
    state = trainer.init(0)
    before = {path: np.asarray(leaf) for path, leaf in flatten(state.parameters).items()}
    state, _ = trainer.step(state, BATCH)
    return {path: np.asarray(leaf) - before[path] for path, leaf in flatten(state.parameters).items()}, state


@pytest.mark.parametrize("name", ["adamw", "muon", "sgd", "lion"])
def test_what_is_frozen_keeps_its_bits_and_has_no_moments(name):
    moved, state = changes({"embedding.*": {"frozen": True}, "*.mlp.*": {"frozen": True}}, name=name)
    frozen = {path for path in moved if path.startswith("embedding.") or ".mlp." in path}
    assert frozen
    assert all(not np.any(moved[path]) for path in frozen)
    assert all(np.any(moved[path]) for path in moved if path not in frozen)
    assert not any(leaf.shape == (2, 16, 32) for leaf in jax.tree.leaves(state.optimizer))


def test_a_rate_is_a_factor_on_every_update_of_the_group():
    plain, _ = changes({})
    moved, _ = changes({"head.*": {"rate": 0.25}, "*": {}})
    for path, change in plain.items():
        factor = 0.25 if path.startswith("head.") else 1.0
        np.testing.assert_allclose(moved[path], factor * change, rtol=1e-4, atol=1e-7, err_msg=path)


def test_a_decay_is_a_factor_on_the_weight_decay_of_vectors_too():
    none, _ = changes({"*": {"decay": 0.0}})
    moved, _ = changes({"*.norm.scale": {"decay": 2.0}, "head.*": {"decay": 0.0}}, weight_decay=0.1)
    trainer = trainer_of({})
    start = flatten(trainer.init(0).parameters)
    for path, change in moved.items():
        factor = 2.0 if path.endswith(".norm.scale") else 0.0
        if factor or path.startswith("head."):
            expected = none[path] - 0.01 * factor * 0.1 * np.asarray(start[path])
            np.testing.assert_allclose(change, expected, rtol=1e-3, atol=1e-6, err_msg=path)


def test_frozen_groups_are_the_same_on_a_mesh():
    alone, _ = changes({"embedding.*": {"frozen": True}})
    split, _ = changes({"embedding.*": {"frozen": True}}, mesh=MeshConfig(fsdp=2, tensor=2, data=2))
    for path, change in alone.items():
        np.testing.assert_allclose(split[path], change, rtol=1e-3, atol=2e-5, err_msg=path)


@pytest.mark.parametrize(
    ("groups", "sentence"),
    [
        (
            {"embeding.*": {}},
            r"'embeding\.\*', which no parameter's path matches \(did you mean embedding.weight",
        ),
        ({"*": {}, "head.*": {"rate": 2.0}}, "the patterns before it take all that it matches"),
        ({"*": {"frozen": True}}, "nothing is left to train"),
    ],
)
def test_a_pattern_without_effect_is_refused(groups, sentence):
    with pytest.raises(InputError, match=sentence):
        trainer_of(groups)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"rate": -1.0}, "rate = -1.0 must be 0 or more"), ({"frozen": True, "rate": 0.5}, "leaves nothing")],
)
def test_a_group_that_cannot_be_meant_is_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        GroupConfig(**options)
