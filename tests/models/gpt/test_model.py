import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.parameter import bind, parameters_of
from mjx.models.common.rope import RoPEConfig
from mjx.models.family import abstract_model
from mjx.models.gpt import GPTConfig
from mjx.trees import flatten

CONFIG = GPTConfig(
    num_layers=3,
    hidden_size=32,
    vocab_size=50,
    attention=AttentionConfig(num_heads=4, num_query_groups=2, rope=RoPEConfig(), window=6),
    mlp=MLPConfig(features=64, activation="silu", gated=True),
    norm=NormConfig(kind="rmsnorm"),
    window_pattern=(True, False),
    init_std=0.2,
    dtype="float32",
)

ONE = {"tokens": jnp.ones(())}
"""Counts by which a loss is a sum."""


@functools.cache
def model_of(config: GPTConfig):
    abstract = abstract_model(config)
    draw = jax.jit(lambda: parameters_of(config.build(nnx.Rngs(params=jax.random.key(0)))))
    return bind(abstract, draw())


def batch_of(rows: int = 2, sequence: int = 16) -> dict:
    tokens = np.random.RandomState(0).randint(0, 50, (rows, sequence + 1)).astype(np.int32)
    mask = np.ones((rows, sequence), np.float32)
    return {"tokens": tokens[:, :-1], "labels": tokens[:, 1:], "loss_mask": mask}


def test_no_token_sees_a_later_one():
    model, tokens = jax.jit(model_of(CONFIG)), batch_of()["tokens"]
    changed = tokens.copy()
    changed[:, 9] = (changed[:, 9] + 1) % 50
    before, after = model(tokens), model(changed)
    np.testing.assert_array_equal(before[:, :9], after[:, :9])
    assert np.abs(before[:, 9] - after[:, 9]).max() > 1e-3


def test_the_window_pattern_gives_every_other_layer_a_window():
    windows = [s.mixer.window for s in CONFIG.sublayers() if isinstance(s.mixer, AttentionConfig)]
    assert windows == [6, None, 6]


def test_dropout_depends_on_the_key_alone():
    config = dataclasses.replace(
        CONFIG, dropout=0.2, attention=dataclasses.replace(CONFIG.attention, dropout=0.2)
    )
    model, batch = model_of(config), batch_of()
    loss = jax.jit(lambda key: model.loss(batch, ONE, key=key)[0])
    same, again, other = (float(loss(jax.random.key(seed))) for seed in (1, 1, 2))
    assert same == again != other
    without = float(jax.jit(lambda: model_of(CONFIG).loss(batch, ONE)[0])())
    assert float(loss(None)) == pytest.approx(without, rel=1e-6), "no key, no dropout"


def test_bfloat16_stays_near_float32_and_its_gradients_are_float32():
    batch = batch_of()
    losses = {}
    for dtype in ("float32", "bfloat16"):
        model = model_of(dataclasses.replace(CONFIG, dtype=dtype))
        parameters = parameters_of(model)
        loss_of = jax.value_and_grad(lambda p, m=model: bind(m, p).loss(batch, ONE)[0])
        loss, gradients = jax.device_get(jax.jit(loss_of)(parameters))
        losses[dtype] = float(loss)
        assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype("float32")}
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=2e-2)


def test_the_initial_numbers_are_gpt_2s():
    config = dataclasses.replace(CONFIG, hidden_size=256, init_std=0.02, vocab_size=1000)
    flat = flatten(parameters_of(model_of(config)))
    assert np.std(flat["embedding.weight"]) == pytest.approx(0.02, rel=0.02)
    assert np.std(flat["decoder.segments.0.1.mlp.down.kernel"]) == pytest.approx(0.02 / 6**0.5, rel=0.05)
    np.testing.assert_array_equal(flat["final_norm.scale"], 1)
