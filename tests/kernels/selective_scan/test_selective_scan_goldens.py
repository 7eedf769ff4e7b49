"""The selective scan in a Mamba-1 model of transformers."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx.kernels.causal_conv1d import causal_conv1d
from mjx.kernels.selective_scan import selective_scan

GOLDEN = Path(__file__).parents[2] / "goldens" / "kernels" / "mamba.npz"
RANK, STATE = 4, 8


def rms_norm(x, weight):
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + 1e-5) * weight


def model(weights, tokens, implementation):
    embedding = weights["backbone.embeddings.weight"]
    hidden = jnp.asarray(embedding)[tokens]
    for number in range(2):
        prefix = f"backbone.layers.{number}."
        w = {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
        w = {name.removeprefix("mixer."): array for name, array in w.items()}
        u, z = jnp.split(rms_norm(hidden, w["norm.weight"]) @ w["in_proj.weight"].T, 2, axis=-1)
        u = causal_conv1d(u, w["conv1d.weight"][:, 0], w["conv1d.bias"], activation="silu")
        rank, B, C = jnp.split(u @ w["x_proj.weight"].T, [RANK, RANK + STATE], axis=-1)
        y = selective_scan(
            u,
            rank @ w["dt_proj.weight"].T,
            -jnp.exp(w["A_log"]),
            B,
            C,
            D=w["D"],
            z=z,
            delta_bias=w["dt_proj.bias"],
            delta_softplus=True,
            implementation=implementation,
        )
        hidden = hidden + y @ w["out_proj.weight"].T
    return rms_norm(hidden, weights["backbone.norm_f.weight"]) @ embedding.T


@pytest.mark.parametrize("implementation", ["reference", "xla"])
def test_a_mamba_model_of_transformers_has_the_same_logits(implementation):
    with np.load(GOLDEN) as case:
        weights = {name.removeprefix("w/"): case[name] for name in case.files if name.startswith("w/")}
        tokens, expected = case["in/input_ids"], case["out/logits"]
    logits = jax.jit(model, static_argnums=2)(weights, tokens, implementation)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)
