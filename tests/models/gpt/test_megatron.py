"""GPT against Megatron-Core 0.16.1 on the CPU: the goldens hold its weights, logits and gradients."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from mjx.models.common.parameter import bind
from mjx.models.gpt import GPTConfig
from mjx.models.gpt.megatron import megatron_name_map
from mjx.models.megatron import read_settings, settings_of
from mjx.trees import flatten

GOLDENS = Path(__file__).parents[2] / "goldens" / "megatron"
CASES = sorted(path.stem for path in GOLDENS.glob("*.npz"))


def settings_of_golden(name: str, case) -> dict:
    """A golden's TransformerConfig, with what it does not hold."""
    theirs = json.loads(str(case["config"]))
    if name == "gpt_sqrelu":  # which prints its activation as a lambda
        theirs["activation_func"] = "squared_relu"
    return {**theirs, "vocab_size": 64, "max_sequence_length": 32}


def config_of(name: str, case, **changes) -> GPTConfig:
    family, config = read_settings(settings_of_golden(name, case), f"{name}.npz")
    assert family == "gpt"
    assert isinstance(config, GPTConfig)
    return dataclasses.replace(config, **changes)


def load(name: str):
    case = np.load(GOLDENS / f"{name}.npz")
    weights = {key[2:]: case[key] for key in case.files if key.startswith("w/")}
    gradients = {key[2:]: case[key] for key in case.files if key.startswith("g/")}
    return case, weights, gradients


def batch_of(case) -> dict:
    return {
        "tokens": case["in/tokens"].astype(np.int32),
        "labels": case["in/labels"].astype(np.int32),
        "loss_mask": np.ones(case["in/tokens"].shape, np.float32),
    }


@pytest.mark.parametrize("name", CASES)
def test_logits_equal_megatron_to_1e_5_and_every_gradient_to_1e_4_relative(name):
    case, weights, gradients = load(name)
    config = config_of(name, case)
    names = megatron_name_map(config)
    model = jax.eval_shape(lambda: config.build(nnx.Rngs(0)))
    parameters = names.to_ours(weights)
    batch = batch_of(case)

    logits = jax.jit(lambda p: bind(model, p)(batch["tokens"]))(parameters)
    np.testing.assert_allclose(logits, case["out/logits"], rtol=0, atol=1e-5)

    def mean_loss(p):
        total, _ = bind(model, p).loss(batch, {"tokens": 1.0})
        return total / batch["loss_mask"].sum()

    loss, ours = jax.jit(jax.value_and_grad(mean_loss))(parameters)
    np.testing.assert_allclose(loss, case["out/loss"], rtol=1e-6)
    theirs = names.to_theirs(jax.tree.map(np.asarray, ours))
    assert theirs.keys() == gradients.keys()
    for key, gradient in gradients.items():
        # Relative to the tensor's largest entry: single entries may cancel to zero.
        np.testing.assert_allclose(
            theirs[key], gradient, rtol=1e-4, atol=1e-4 * np.abs(gradient).max() + 1e-8, err_msg=key
        )


@pytest.mark.parametrize("name", CASES)
def test_the_name_map_returns_every_tensor_unchanged(name):
    case, weights, _ = load(name)
    names = megatron_name_map(config_of(name, case))
    back = names.to_theirs(names.to_ours(weights))
    assert back.keys() == weights.keys()
    for key, tensor in weights.items():
        np.testing.assert_array_equal(back[key], tensor, err_msg=key)


@pytest.mark.parametrize("name", CASES)
def test_a_config_survives_the_way_to_megatron_s_arguments_and_back(name):
    config = config_of(name, load(name)[0])
    family, returned = read_settings(settings_of(config), "Megatron-LM")
    assert family == "gpt"
    resolved = config.attention.resolve(config.hidden_size)
    assert dataclasses.replace(config, attention=resolved) == dataclasses.replace(
        returned, attention=returned.attention.resolve(returned.hidden_size)
    )


@pytest.mark.parametrize("remat", ["selective", "full"])
def test_recomputation_and_chunked_loss_and_padded_vocabulary_change_no_gradient(remat):
    case, weights, gradients = load("qwen3")
    config = config_of("qwen3", case, remat=remat, loss_chunks=4, vocab_divisor=48)
    names = megatron_name_map(config)
    model = jax.eval_shape(lambda: config.build(nnx.Rngs(0)))
    parameters = names.to_ours(weights)
    assert flatten(parameters)["embedding.weight"].shape[0] == 96
    batch = batch_of(case)
    ours = jax.jit(jax.grad(lambda p: bind(model, p).loss(batch, {"tokens": 32.0})[0]))(parameters)
    for key, gradient in names.to_theirs(jax.tree.map(np.asarray, ours)).items():
        np.testing.assert_allclose(
            gradient, gradients[key], rtol=1e-4, atol=1e-4 * np.abs(gradients[key]).max() + 1e-8
        )
