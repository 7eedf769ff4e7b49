"""State-space duality against its quadratic form, and in a Mamba-2 model of Megatron-Core 0.16.1."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx.kernels.causal_conv1d import causal_conv1d, causal_conv1d_step
from mjx.kernels.ssd import ssd, ssd_step

GOLDENS = Path(__file__).parents[2] / "goldens" / "kernels"
HEADS, HEAD_DIM, GROUPS, STATE = 8, 8, 2, 16
INNER = HEADS * HEAD_DIM
SPLIT = np.cumsum([INNER, INNER + 2 * GROUPS * STATE])
"""Where z ends, and where the channels of the convolution do."""


def golden(name):
    with np.load(GOLDENS / name) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("implementation", ["reference", "xla"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_is_the_quadratic_form_of_the_paper(implementation, dtype):
    case = golden("ssd.npz")
    expected = case.pop("y")
    with jax.enable_x64(dtype == "float64"):
        arrays = {name: jnp.asarray(array, dtype) for name, array in case.items()}
        y = ssd(**arrays, chunk_size=8, implementation=implementation)
    tolerance = {"float32": 1e-5, "float64": 1e-13}[dtype] * np.abs(expected).max()
    np.testing.assert_allclose(y, expected, rtol=0, atol=tolerance)


def rms_norm(x, weight, groups=1):
    grouped = x.reshape(*x.shape[:-1], groups, -1)
    normed = grouped * jax.lax.rsqrt(jnp.mean(jnp.square(grouped), -1, keepdims=True) + 1e-5)
    return normed.reshape(x.shape) * weight


def mixer_inputs(w, hidden):
    projected = rms_norm(hidden, w["in_proj.layer_norm_weight"]) @ w["in_proj.weight"].T
    return jnp.split(projected, SPLIT, axis=-1)


def scan_inputs(w, convolved, dt):
    """x, B and C of the scan, and what it has beside them."""
    x, B, C = jnp.split(convolved, np.cumsum([INNER, GROUPS * STATE]), axis=-1)
    return {
        "x": x.reshape(*x.shape[:-1], HEADS, HEAD_DIM),
        "dt": dt,
        "A": -jnp.exp(w["A_log"]),
        "B": B.reshape(*B.shape[:-1], GROUPS, STATE),
        "C": C.reshape(*C.shape[:-1], GROUPS, STATE),
        "D": w["D"],
        "dt_bias": w["dt_bias"],
        "dt_softplus": True,
    }


def mixer_output(w, y, z):
    gated = y.reshape(*y.shape[:-2], INNER) * jax.nn.silu(z)
    return rms_norm(gated, w["norm.weight"], GROUPS) @ w["out_proj.weight"].T


def layer(weights, number):
    prefix = f"decoder.layers.{number}.mixer."
    w = {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
    return w, (w["conv1d.weight"][:, 0], w["conv1d.bias"])


def model(weights, tokens, **options):
    hidden = weights["embedding.word_embeddings.weight"][tokens]
    for number in range(2):
        w, conv = layer(weights, number)
        z, channels, dt = mixer_inputs(w, hidden)
        convolved = causal_conv1d(channels, *conv, activation="silu")
        hidden = hidden + mixer_output(w, ssd(**scan_inputs(w, convolved, dt), **options), z)
    return rms_norm(hidden, weights["decoder.final_norm.weight"]) @ weights["output_layer.weight"].T


@pytest.fixture(scope="module")
def megatron():
    case = golden("mamba2.npz")
    parts = {"w": {}, "g": {}, "in": {}, "out": {}}
    for name, array in case.items():
        kind, _, rest = name.partition("/")
        if kind in parts:
            parts[kind][rest] = array
    return parts


@pytest.mark.parametrize("implementation", ["reference", "xla"])
def test_a_mamba2_model_of_megatron_has_the_same_logits_loss_and_gradients(megatron, implementation):
    def loss(weights):
        logits = model(weights, megatron["in"]["tokens"], implementation=implementation, chunk_size=5)
        log_probabilities = jax.nn.log_softmax(logits)
        chosen = jnp.take_along_axis(log_probabilities, megatron["in"]["labels"][..., None], axis=-1)
        return -jnp.mean(chosen), logits

    (value, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(megatron["w"])
    np.testing.assert_allclose(logits, megatron["out"]["logits"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(value, megatron["out"]["loss"], rtol=1e-6)
    assert gradients.keys() == megatron["g"].keys()
    for name, expected in megatron["g"].items():
        scale = np.abs(expected).max()
        np.testing.assert_allclose(gradients[name], expected, rtol=0, atol=1e-5 * scale, err_msg=name)


def test_the_model_decodes_token_by_token_to_the_same_logits(megatron):
    weights, tokens = megatron["w"], megatron["in"]["tokens"]

    @jax.jit
    def step(states, token):
        hidden, following = jnp.asarray(weights["embedding.word_embeddings.weight"])[token], []
        for number, (past, state) in enumerate(states):
            w, conv = layer(weights, number)
            z, channels, dt = mixer_inputs(w, hidden)
            convolved, past = causal_conv1d_step(past, channels, *conv, activation="silu")
            y, state = ssd_step(state, **scan_inputs(w, convolved, dt))
            hidden = hidden + mixer_output(w, y, z)
            following.append((past, state))
        final = rms_norm(hidden, weights["decoder.final_norm.weight"])
        return following, final @ weights["output_layer.weight"].T

    channels = INNER + 2 * GROUPS * STATE
    empty = (np.zeros((2, 3, channels), np.float32), np.zeros((2, HEADS, HEAD_DIM, STATE), np.float32))
    states = [empty, empty]
    for position in range(tokens.shape[1]):
        states, logits = step(states, tokens[:, position])
        np.testing.assert_allclose(logits, megatron["out"]["logits"][:, position], rtol=0, atol=1e-5)
