"""Rotary positions equal those of transformers (goldens/rope)."""

import dataclasses
import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from reference.rotation import rotate as by_reference
from reference.rotation import turns

from mjx.errors import InputError
from mjx.models.common.rope import RoPEConfig, RoPEScaling, inverse_frequencies, rotary_tables, rotate

GOLDENS = np.load(Path(__file__).parents[2] / "goldens/rope/rope.npz")
CASES = json.loads(str(GOLDENS["cases"]))


def config_of(case: dict) -> RoPEConfig:
    kind = case["rope_type"]
    percent = case.get("partial_rotary_factor", 1.0)
    if kind in ("default", "interleaved"):
        layout = "halves" if kind == "default" else "interleaved"
        return RoPEConfig(base=case["rope_theta"], layout=layout, percent=percent)
    names = {
        "factor": "factor",
        "original_max_position_embeddings": "original_positions",
        "low_freq_factor": "low_frequency_factor",
        "high_freq_factor": "high_frequency_factor",
        "beta_fast": "beta_fast",
        "beta_slow": "beta_slow",
        "truncate": "round_ramp",
        "attention_factor": "concentration",
        "short_factor": "short_factors",
        "long_factor": "long_factors",
    }
    given = {ours: case[theirs] for theirs, ours in names.items() if theirs in case}
    given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    if "mscale" in case:
        scales = [0.1 * case[name] * math.log(case["factor"]) + 1 for name in ("mscale", "mscale_all_dim")]
        given["concentration"] = scales[0] / scales[1]
    return RoPEConfig(base=case["rope_theta"], percent=percent, scaling=RoPEScaling(kind=kind, **given))


def is_long(case: dict) -> bool:
    return case.get("last", 40000) >= case.get("original_max_position_embeddings", math.inf)


@pytest.mark.parametrize(
    ("number", "name"),
    [(n, name) for n, name in enumerate(CASES) if CASES[name]["rope_type"] != "interleaved"],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_frequencies_equal_transformers_to_float32s_rounding(number, name):
    config, case = config_of(CASES[name]), CASES[name]
    ours = inverse_frequencies(config, case["head_dim"], long=is_long(case))
    np.testing.assert_allclose(ours, GOLDENS[f"{number}.frequencies"], rtol=1e-6)
    factor = 1.0 if config.scaling is None else config.scaling.tables_factor
    assert factor == pytest.approx(float(GOLDENS[f"{number}.factor"]), rel=1e-12)


@pytest.mark.parametrize(("number", "name"), list(enumerate(CASES)), ids=list(CASES))
def test_tables_and_rotation_equal_transformers(number, name):
    case = CASES[name]
    config = config_of(case)
    positions = jnp.asarray(GOLDENS[f"{number}.positions"])[None]
    cos, sin = rotary_tables(config, case["head_dim"], positions)
    # Angles reach 40000 radians in float32, whose spacing there is 0.004; early positions are exact.
    assert np.abs(cos[0, :5] - GOLDENS[f"{number}.cos"][:5]).max() < 1e-5
    assert np.abs(sin[0, :5] - GOLDENS[f"{number}.sin"][:5]).max() < 1e-5
    np.testing.assert_allclose(cos[0], GOLDENS[f"{number}.cos"], atol=2e-2)
    np.testing.assert_allclose(sin[0], GOLDENS[f"{number}.sin"], atol=2e-2)
    queries = jnp.asarray(GOLDENS[f"{number}.queries"])[None]
    cos, sin = jnp.asarray(GOLDENS[f"{number}.cos"])[None], jnp.asarray(GOLDENS[f"{number}.sin"])[None]
    turned = rotate(queries, cos, sin, config.layout)
    np.testing.assert_allclose(turned[0], GOLDENS[f"{number}.rotated"], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("number", "name"), list(enumerate(CASES)), ids=list(CASES))
def test_the_reference_turns_as_transformers_and_we_as_the_reference(number, name):
    case, config = CASES[name], config_of(CASES[name])
    positions = GOLDENS[f"{number}.positions"][None]
    factors = turns(config, case["head_dim"], positions)[0]
    np.testing.assert_allclose(factors.real[:5], GOLDENS[f"{number}.cos"][:5], atol=2e-6)
    np.testing.assert_allclose(factors.imag[:5], GOLDENS[f"{number}.sin"][:5], atol=2e-6)
    queries = GOLDENS[f"{number}.queries"][None]
    tables = rotary_tables(config, case["head_dim"], jnp.asarray(positions))
    ours = rotate(jnp.asarray(queries), *tables, config.layout)
    expected = by_reference(config, queries, positions)
    np.testing.assert_allclose(ours[:, :5], expected[:, :5], atol=1e-5)


LONGROPE = RoPEConfig(
    scaling=RoPEScaling(
        kind="longrope",
        factor=4,
        original_positions=10,
        short_factors=(1.0, 1.5, 2.0, 3.0),
        long_factors=(2.0, 4.0, 8.0, 16.0),
    )
)


def test_each_row_of_a_batch_is_short_or_long_by_its_own_last_position():
    positions = jnp.array([[0, 1, 9], [0, 1, 10], [7, 8, 8]])
    cos, _ = rotary_tables(LONGROPE, 8, positions)
    for row in range(3):
        alone, _ = rotary_tables(LONGROPE, 8, positions[row : row + 1])
        np.testing.assert_array_equal(cos[row], alone[0])
    assert np.abs(cos[0, 1] - cos[1, 1]).max() > 0.05, "the same position, in a short row and in a long one"


def test_a_part_of_a_row_is_rotated_as_the_whole_row_is():
    whole = jnp.arange(14)[None]
    parts = [
        rotary_tables(LONGROPE, 8, whole[:, cut], last=jnp.array([13])) for cut in np.split(np.arange(14), 2)
    ]
    for part, table in zip(zip(*parts, strict=True), rotary_tables(LONGROPE, 8, whole), strict=True):
        np.testing.assert_array_equal(jnp.concatenate(part, axis=1), table)


@pytest.mark.parametrize("layout", ["halves", "interleaved"])
def test_a_share_of_the_features_is_rotated_and_the_rest_passes(layout):
    config = RoPEConfig(percent=0.25, layout=layout)
    x = jnp.asarray(np.random.RandomState(0).randn(2, 7, 3, 32), jnp.float32)
    positions = jnp.arange(7)[None]
    cos, sin = rotary_tables(config, 32, positions)
    assert cos.shape == (1, 7, 4)
    y = rotate(x, cos, sin, layout)
    np.testing.assert_array_equal(y[..., 8:], x[..., 8:])
    alone = rotate(x[..., :8], *rotary_tables(dataclasses.replace(config, percent=1.0), 8, positions), layout)
    np.testing.assert_array_equal(y[..., :8], alone)
    assert np.abs(y[:, 1:, :, :8] - x[:, 1:, :, :8]).min(axis=-1).max() > 0


@pytest.mark.parametrize("layout", ["halves", "interleaved"])
def test_scores_depend_on_the_distance_alone(layout):
    config = RoPEConfig(layout=layout)
    q, k = np.random.RandomState(0).randn(2, 1, 1, 1, 16).astype(np.float32)

    def score(i, j):
        rotated = [
            rotate(jnp.asarray(x), *rotary_tables(config, 16, jnp.array([[at]])), layout)
            for x, at in ((q, i), (k, j))
        ]
        return float(jnp.vdot(*rotated))

    assert score(5, 2) == pytest.approx(score(105, 102), abs=1e-4)
    assert abs(score(5, 2) - score(5, 3)) > 1e-3


def test_interleaved_pairs_are_the_halves_of_shuffled_features():
    x = jnp.asarray(np.random.RandomState(0).randn(1, 5, 2, 8), jnp.float32)
    cos, sin = rotary_tables(RoPEConfig(), 8, jnp.arange(5)[None])
    order = np.array([0, 2, 4, 6, 1, 3, 5, 7])
    halves = rotate(x[..., order], cos, sin, "halves")
    np.testing.assert_allclose(rotate(x, cos, sin, "interleaved")[..., order], halves, rtol=1e-6)


def test_bfloat16_is_rotated_in_float32():
    x = jnp.asarray(np.random.RandomState(0).randn(1, 5, 2, 8), jnp.bfloat16)
    cos, sin = rotary_tables(RoPEConfig(), 8, 1000 + jnp.arange(5)[None])
    y = rotate(x, cos, sin, "halves")
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, rotate(x.astype(jnp.float32), cos, sin, "halves").astype(jnp.bfloat16))


def test_a_factor_of_one_stretches_nothing():
    plain = inverse_frequencies(RoPEConfig(), 32)
    for kind in ("linear", "llama3", "yarn"):
        scaling = RoPEScaling(kind=kind, factor=1)
        np.testing.assert_allclose(inverse_frequencies(RoPEConfig(scaling=scaling), 32), plain, rtol=1e-12)
        assert scaling.tables_factor == 1


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: RoPEConfig(percent=0), r"rope\.percent = 0 must be above 0"),
        (lambda: RoPEConfig(base=1), r"rope\.base = 1 must be above 1"),
        (
            lambda: RoPEConfig(percent=0.5).rotated(6),
            r"rope\.percent = 0\.5 of head_dim = 6 rotates 3 features",
        ),
        (lambda: RoPEScaling(kind="linear", factor=0), r"rope\.scaling\.factor = 0 must be positive"),
        (
            lambda: RoPEScaling(kind="llama3", factor=2, low_frequency_factor=4),
            r"low_frequency_factor = 4 must be below high_frequency_factor = 4",
        ),
        (lambda: RoPEScaling(kind="yarn", factor=2, original_positions=0), r"original_positions = 0 must be"),
        (
            lambda: RoPEScaling(kind="yarn", factor=2, beta_slow=40.0),
            r"beta_slow = 40\.0 must be above 0 and below beta_fast = 32\.0",
        ),
        (
            lambda: RoPEScaling(kind="linear", factor=2, concentration=1.5),
            r"concentration = 1\.5 is for yarn and longrope; with kind = linear it must be null",
        ),
        (
            lambda: RoPEScaling(kind="yarn", factor=2, concentration=-1.0),
            r"rope\.scaling\.concentration = -1\.0 must be positive",
        ),
        (
            lambda: RoPEScaling(kind="longrope", factor=2, short_factors=(1.0, 2.0)),
            r"rope\.scaling\.long_factors is null, but kind = longrope: it needs a divisor for every pair",
        ),
        (
            lambda: RoPEScaling(kind="yarn", factor=2, short_factors=(1.0, 2.0)),
            r"rope\.scaling\.short_factors is given, but kind = yarn: it needs longrope",
        ),
        (
            lambda: dataclasses.replace(LONGROPE.scaling, long_factors=(1.0, -2.0)),
            r"rope\.scaling\.long_factors\.1 = -2\.0 must be positive",
        ),
        (lambda: RoPEConfig(base=float("inf")), r"rope\.base = inf must be above 1, and at most 1e\+30"),
        (lambda: RoPEScaling(kind="linear", factor=1e-320), r"factor = 1e-320 must be from 1e-30 to 1e\+30"),
        (lambda: RoPEScaling(kind="yarn", factor=2, beta_slow=1e-320), r"beta_slow = 1e-320 must be from"),
        (lambda: RoPEScaling(kind="yarn", factor=2, beta_fast=float("inf")), r"beta_fast = inf must be from"),
        (
            lambda: RoPEScaling(kind="llama3", factor=2, low_frequency_factor=0),
            r"low_frequency_factor = 0 must be positive",
        ),
        (
            lambda: dataclasses.replace(LONGROPE.scaling, original_positions=1),
            r"original_positions = 1 must be above 1 for longrope",
        ),
        (
            lambda: LONGROPE.check(16),
            r"short_factors has 4 divisors, but rope\.percent = 1\.0 of head_dim = 16 makes 8 pairs",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()
