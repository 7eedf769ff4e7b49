"""The options of the decoder, one by one and together, against the reference."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from reference import decoder as reference

from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.parameter import bind, parameters_of
from mjx.models.common.rope import RoPEConfig, RoPEScaling
from mjx.models.common.token_model.inputs import Inputs
from mjx.models.gpt import GPTConfig
from mjx.trees import flatten, unflatten

VOCAB, EMBED, LAYERS, HEADS, HEAD_DIM = 50, 32, 4, 4, 8
RMS = NormConfig(kind="rmsnorm")
GATED = MLPConfig(features=24, activation="silu", gated=True)
ROPE = RoPEConfig(base=100.0)

OPTIONS = {
    "norms behind": {"norm_placement": "output"},
    "norms on both sides": {"norm_placement": "both"},
    "parallel residual": {"parallel_residual": True},
    "parallel residual, norms on both sides": {"parallel_residual": True, "norm_placement": "both"},
    "embedding scale": {"embedding_scale": EMBED**0.5, "tie_embeddings": True},
    "soft-capped logits": {"logit_soft_cap": 3.0, "z_loss": 0.01, "loss_chunks": 2},
    "another rotation in windows": {
        "attention": {"window": 3},
        "window_pattern": (True, False),
        "window_rope": RoPEConfig(base=7.0),
    },
    "normed over all heads": {"attention": {"qk_norm": RMS, "qk_norm_over": "all_heads"}},
    "normed over all heads, two of them keys": {
        "attention": {"qk_norm": RMS, "qk_norm_over": "all_heads", "num_query_groups": 2}
    },
    "like GPT-NeoX": {
        "attention": {"qkv_bias": True, "output_bias": True, "rope": RoPEConfig(percent=0.25)},
        "mlp": MLPConfig(features=24, activation="gelu", bias=True),
        "norm": NormConfig(),
        "parallel_residual": True,
    },
    "like OLMo 2": {
        "attention": {"qk_norm": RMS, "qk_norm_over": "all_heads", "num_query_groups": 2},
        "norm_placement": "output",
    },
    "like Gemma 2": {
        "attention": {"num_query_groups": 2, "window": 4, "soft_cap": 2.0, "scale": 0.4},
        "mlp": MLPConfig(features=24, activation="gelu-tanh", gated=True),
        "norm": NormConfig(kind="rmsnorm", zero_centered=True),
        "norm_placement": "both",
        "window_pattern": (True, False),
        "embedding_scale": EMBED**0.5,
        "logit_soft_cap": 3.0,
        "tie_embeddings": True,
    },
    "like Gemma 3": {
        "attention": {"num_query_groups": 1, "window": 4, "qk_norm": NormConfig(kind="rmsnorm")},
        "norm_placement": "both",
        "num_layers": 6,
        "window_pattern": (True, True, False),
        "window_rope": RoPEConfig(base=7.0, scaling=RoPEScaling(kind="linear", factor=2.0)),
        "embedding_scale": EMBED**0.5,
        "tie_embeddings": True,
    },
}


def config_of(name: str, **changes) -> GPTConfig:
    options = {
        "num_layers": LAYERS,
        "hidden_size": EMBED,
        "vocab_size": VOCAB,
        "mlp": GATED,
        "norm": RMS,
        "dtype": "float32",
        **OPTIONS[name],
        **changes,
    }
    attention = {"num_heads": HEADS, "head_dim": HEAD_DIM, "rope": ROPE, **options.pop("attention", {})}
    return GPTConfig(**options, attention=AttentionConfig(**attention))


def model_of(config: GPTConfig):
    """The model, none of whose parameters has a special value."""
    model = jax.eval_shape(lambda: config.build(nnx.Rngs(params=jax.random.key(0))))
    random = np.random.RandomState(1)
    gain = 0 if config.norm.zero_centered else 1
    values = {
        path: (0.3 * random.randn(*leaf.shape) + gain * path.endswith("scale")).astype(np.float32)
        for path, leaf in flatten(parameters_of(model)).items()
    }
    return bind(model, unflatten(values)), values


def tokens_of(rows: int = 4, sequence: int = 16) -> np.ndarray:
    return np.random.RandomState(0).randint(0, VOCAB, (rows, sequence)).astype(np.int32)


@pytest.mark.parametrize("name", OPTIONS)
def test_logits_and_loss_equal_the_reference_to_1e_5(name):
    config = config_of(name)
    model, values = model_of(config)
    tokens = tokens_of()
    labels = np.roll(tokens, -1, axis=1)
    mask = (np.random.RandomState(2).rand(*tokens.shape) < 0.7).astype(np.float32)

    batch = {"tokens": tokens, "labels": labels, "loss_mask": mask}
    got, got_loss = jax.jit(lambda: (model(tokens), model.loss(batch, {"tokens": 1.0})[0]))()
    logits = reference.logits(config, values, tokens)
    np.testing.assert_allclose(got, logits, rtol=1e-5, atol=1e-5 * np.abs(logits).max())
    assert float(got_loss) == pytest.approx(reference.loss(config, values, batch).total, rel=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_embedding_scale_is_rounded_to_the_compute_dtype(dtype):
    """With √32 = 5.6569 rounded to 5.65625, every product differs from that with the exact factor."""
    config = dataclasses.replace(config_of("embedding scale"), dtype=dtype, num_layers=1)
    model, values = model_of(config)
    silent = {path: 0 * v if "output.kernel" in path or "down" in path else v for path, v in values.items()}
    hidden = bind(model, unflatten(silent)).hidden_states(Inputs(tokens_of()))
    rows = jnp.asarray(values["embedding.weight"])[tokens_of()].astype(dtype)
    scaled = rows * jnp.asarray(EMBED**0.5).astype(dtype)
    np.testing.assert_array_equal(hidden, model.final_norm(scaled))


def test_the_embeddings_have_a_dropout_of_their_own():
    tokens = tokens_of()
    batch = {"tokens": tokens, "labels": tokens, "loss_mask": np.ones(tokens.shape, np.float32)}
    key = jax.random.key(0)

    def loss(**options) -> float:
        model, _ = model_of(config_of("embedding scale", num_layers=1, **options))
        return float(jax.jit(lambda key: model.loss(batch, {"tokens": 1.0}, key=key)[0])(key))

    without, everywhere = loss(), loss(dropout=0.5)
    assert loss(dropout=0.5, embedding_dropout=0.5) == everywhere != without
    assert loss(dropout=0.5, embedding_dropout=0.0) not in (without, everywhere)
    assert loss(embedding_dropout=0.5) != without


def test_layers_without_rotation_have_none_in_their_windows_either():
    config = config_of("another rotation in windows", rope_pattern=(False, True, True, True))
    ropes = [s.mixer.rope for s in config.sublayers() if isinstance(s.mixer, AttentionConfig)]
    assert ropes == [None, ROPE, config.window_rope, ROPE]
