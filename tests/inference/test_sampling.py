"""Filters against transformers' logits processors; draws against the distribution they should have."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx.errors import InputError
from mjx.inference import SamplingConfig
from mjx.inference.sampling import filtered, row_keys, sample

sample = jax.jit(sample, static_argnums=2)
row_keys = jax.jit(row_keys)

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "inference" / "sampling.npz")
CASES = list(enumerate(json.loads(str(GOLDENS["cases"]))))


@pytest.mark.parametrize(("number", "case"), CASES)
def test_filtered_logits_equal_transformers_processors(number, case):
    ours = np.asarray(jax.jit(lambda x: filtered(x, SamplingConfig(**case)))(GOLDENS["logits"]))
    theirs = GOLDENS[f"filtered_{number}"]
    np.testing.assert_array_equal(np.isfinite(ours).sum(-1), np.isfinite(theirs).sum(-1))
    # Which of equal logits stay is up to the sort; the kept values are not.
    np.testing.assert_allclose(np.sort(ours, -1), np.sort(theirs, -1), rtol=1e-6)
    kept = np.isfinite(ours)
    np.testing.assert_allclose(ours[kept], (GOLDENS["logits"] / case["temperature"])[kept], rtol=1e-6)


def brute_force(logits: np.ndarray, config: SamplingConfig) -> np.ndarray:
    """The distribution by the definitions, in float64: what a patient reader would do with a sorted list."""
    scores = logits.astype(np.float64) / config.temperature
    if config.top_k is not None:
        scores[scores < np.sort(scores)[-min(config.top_k, len(scores))]] = -np.inf
    weights = np.exp(scores - scores.max())
    weights /= weights.sum()
    order = np.argsort(-weights)
    smallest = int(np.searchsorted(np.cumsum(weights[order]), config.top_p)) + 1
    nucleus = np.zeros_like(weights)
    nucleus[order[:smallest]] = weights[order[:smallest]]
    return nucleus / nucleus.sum()


@pytest.mark.parametrize(
    "config",
    [
        SamplingConfig(temperature=1.5),
        SamplingConfig(temperature=0.8, top_k=4),
        SamplingConfig(temperature=1.0, top_p=0.7),
        SamplingConfig(temperature=1.3, top_k=6, top_p=0.85),
    ],
)
def test_draws_have_the_distribution_of_the_definitions(config):
    logits = np.random.default_rng(1).normal(0, 1.5, 12).astype(np.float32)
    draws = 40_000
    keys = row_keys(jnp.uint32(3), jnp.arange(draws), jnp.zeros(draws, jnp.int32))
    tokens = sample(jnp.tile(logits, (draws, 1)), keys, config)
    frequencies = np.bincount(tokens, minlength=12) / draws
    expected = brute_force(logits, config)
    assert (frequencies[expected == 0] == 0).all()
    deviation = np.sqrt(expected * (1 - expected) / draws)
    assert (np.abs(frequencies - expected) <= 4.5 * deviation).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_nucleus_of_a_large_vocabulary_is_the_sorted_lists(seed):
    random = np.random.default_rng(seed)
    logits = random.normal(0, 4, (2, 20_000)).astype(np.float32)
    config = SamplingConfig(top_p=float(random.uniform(0.3, 0.99)))
    kept = np.isfinite(filtered(jnp.asarray(logits), config))
    for row in range(2):
        np.testing.assert_array_equal(kept[row], brute_force(logits[row], config) > 0)


def test_temperature_zero_takes_the_most_likely_token_and_top_k_1_agrees():
    logits = jax.random.normal(jax.random.key(0), (6, 50))
    keys = row_keys(jnp.uint32(0), jnp.arange(6), jnp.arange(6))
    expected = np.argmax(logits, -1)
    np.testing.assert_array_equal(sample(logits, keys, SamplingConfig(temperature=0.0)), expected)
    np.testing.assert_array_equal(sample(logits, keys, SamplingConfig(top_k=1)), expected)
    np.testing.assert_array_equal(sample(logits, keys, SamplingConfig(top_p=1e-9)), expected)


@pytest.mark.parametrize("temperature", [1e-6, 1e-7, 1e-38, 1e-45, 5e-324])
@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_the_limit_of_small_temperatures_is_the_most_likely_token(temperature, top_p):
    logits = jnp.array([[5.0, 7.0, 6.0, -3.0], [-7.0, -6.0, -6.5, -9.0]])
    keys = row_keys(jnp.uint32(0), jnp.arange(2), jnp.zeros(2, jnp.int32))
    drawn = sample(logits, keys, SamplingConfig(temperature=temperature, top_p=top_p))
    assert drawn.tolist() == [1, 1]


def test_a_nucleus_is_never_empty_even_of_equal_logits():
    kept = np.isfinite(filtered(jnp.zeros((1, 7)), SamplingConfig(top_p=1e-9)))
    assert kept.sum() == 1


def test_a_rows_draw_does_not_depend_on_the_rows_beside_it():
    logits = jax.random.normal(jax.random.key(0), (8, 100))
    config = SamplingConfig(temperature=1.2, top_p=0.95)
    positions = jnp.arange(8) * 3
    keys = row_keys(jnp.uint32(5), jnp.arange(8), positions)
    whole = sample(logits, keys, config)
    for row in range(8):
        alone = row_keys(jnp.uint32(5), jnp.array([row]), positions[row : row + 1])
        assert sample(logits[row : row + 1], alone, config)[0] == whole[row]
    assert len(set(whole.tolist())) > 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_new_tokens", 0),
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("top_k", 0),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("seed", -1),
    ],
)
def test_a_setting_that_cannot_be_is_named(field, value):
    with pytest.raises(InputError, match=rf"sampling\.{field} = {value}"):
        SamplingConfig(**{field: value})
