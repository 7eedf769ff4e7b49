"""The router against float64: whom it chooses, of equals too, with which probabilities, and whom it drops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import moe as reference
from routers import MASK, config_of, context, logits_of, parameters, router_of

from mjx.models.common.context import Context

FOUR = {"top_k": 4}
GROUPS = {"groups": 4, "top_groups": 2}
SIGMOID = {"scores": "sigmoid", "expert_bias_rate": 1e-2}
CONFIGS = {
    "softmax": config_of(),
    "softmax, of all": config_of(router={"normalized": False}),
    "softmax, 1 of all, scaled": config_of(top_k=1, router={"scaling": 2.5}),
    "softmax, groups": config_of(**FOUR, router=GROUPS),
    "softmax, of all, groups": config_of(**FOUR, router={"normalized": False, **GROUPS}),
    "softmax, bias": config_of(router={"bias": True}),
    "sigmoid": config_of(router={"scores": "sigmoid"}),
    "sigmoid, 1": config_of(top_k=1, router={"scores": "sigmoid"}),
    "sigmoid, expert bias": config_of(router=SIGMOID),
    "sigmoid, expert bias, groups, scaled": config_of(**FOUR, router={**SIGMOID, **GROUPS, "scaling": 2.5}),
    "sigmoid, all experts": config_of(top_k=8, router={"scores": "sigmoid"}),
    "sqrt-softplus": config_of(router={"scores": "sqrt-softplus"}),
    "sqrt-softplus, expert bias": config_of(router={**SIGMOID, "scores": "sqrt-softplus"}),
    "sinkhorn": config_of(top_k=1, router={"scores": "sigmoid", "sinkhorn": True}),
    "sinkhorn, 2": config_of(router={"normalized": False, "sinkhorn": True}),
    "capacity": config_of(capacity_factor=0.6),
    "capacity, by position": config_of(capacity_factor=0.6, drop_by="position"),
    "capacity, sigmoid, expert bias": config_of(router=SIGMOID, capacity_factor=1.0),
}


def assert_equal(config, x, **context_fields):
    arrays = parameters(config)
    around = context(**context_fields)
    routing, _ = router_of(config, arrays)(x, around)
    expected = reference.route(config, arrays, x, counted=MASK, training=around.training)
    np.testing.assert_array_equal(routing.ids, np.where(expected.kept, expected.ids, config.experts))
    probabilities = np.where(expected.kept, expected.probabilities, 0)
    np.testing.assert_allclose(routing.probabilities, probabilities, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", CONFIGS)
def test_choices_and_probabilities_are_those_of_the_formula(name):
    config = CONFIGS[name]
    assert_equal(config, logits_of(config))


@pytest.mark.parametrize("name", [name for name in CONFIGS if "sinkhorn" not in name])
def test_of_equals_the_first_are_chosen_and_kept(name):
    config = CONFIGS[name]
    assert_equal(config, logits_of(config, ties=True))


@pytest.mark.parametrize("name", ["sinkhorn", "capacity"])
def test_evaluation_neither_balances_nor_drops(name):
    config = CONFIGS[name]
    assert_equal(config, logits_of(config), training=False)


def test_drops_are_by_probability_or_by_position():
    x = np.zeros((1, 6, 2), np.float32)
    x[0, :, 0] = [1, 3, 2, 5, 4, 3]  # all want expert 0, which has room for 3
    for drop_by, kept in (("probability", [1, 3, 4]), ("position", [0, 1, 2])):
        config = config_of(2, 1, capacity_factor=1.0, drop_by=drop_by)
        routing, _ = router_of(config, parameters(config))(x, Context(training=True))
        assert np.flatnonzero(routing.ids[0, :, 0] == 0).tolist() == kept
        np.testing.assert_array_equal(routing.ids[0, :, 0] == 2, routing.probabilities[0, :, 0] == 0)


def test_tokens_that_do_not_count_do_not_change_how_sinkhorn_balances_the_others():
    config = CONFIGS["sinkhorn"]
    router, x = router_of(config, parameters(config)), logits_of(config)
    other = np.where(MASK[..., None] > 0, x, -x)
    ids, changed = (router(each, context())[0].ids for each in (x, other))
    np.testing.assert_array_equal(ids[MASK > 0], changed[MASK > 0])
    alone, _ = router(x, Context())
    assert (np.asarray(alone.ids) != ids)[MASK > 0].any()


def test_biases_for_choosing_change_no_probability():
    config = config_of(4, 2, router={**SIGMOID, "normalized": False})
    x = np.array([[[2.0, 1.0, 0.0, -1.0]]], np.float32)
    arrays = {**parameters(config), "expert_bias": np.array([0, -1, 0, 1], np.float32)}
    routing, _ = router_of(config, arrays)(x, Context())
    assert routing.ids[0, 0].tolist() == [3, 0]
    np.testing.assert_allclose(routing.probabilities[0, 0], [1 / (1 + np.e), 1 / (1 + np.e**-2)], rtol=1e-6)


def test_jitter_moves_what_the_router_reads_by_its_share_in_training_only():
    config = config_of(router={"jitter": 0.1})
    router, x = router_of(config, parameters(config)), logits_of(config)
    np.testing.assert_array_equal(router.jittered(x, context()), x)  # an evaluation, or a run without chance
    moved = router.jittered(x, context(dropout_key=jax.random.key(0))) / x
    assert 0.9 <= moved.min() < 0.95
    assert 1.05 < moved.max() <= 1.1


def test_float64_keeps_what_float32_rounds_away_forward_and_backward():
    wide, narrow = (config_of(4, 2, router={"precision": name}) for name in ("float64", "float32"))
    kernel = np.array([[1e4, 0, 0, 0], [1, 0.5, 0.25, 2], [-1e4, 0, 0, 0]], np.float32)
    x = np.array([[[1e4, 1, 1e4]]], np.float32)  # of the first expert: 1e8 + 1 - 1e8

    def routed(config, kernel):
        routing, _ = router_of(config, {"kernel": kernel})(x, Context())
        return routing.probabilities[0, 0, 0], routing

    program = jax.jit(jax.value_and_grad(lambda kernel: routed(wide, kernel), has_aux=True))
    (_, routing), slope = program(kernel)
    assert routing.ids.tolist() == [[[3, 0]]]
    assert routed(narrow, kernel)[1].ids.tolist() == [[[3, 1]]]
    p = 1 / (1 + np.exp(-1))
    np.testing.assert_allclose(routing.probabilities[0, 0], [p, 1 - p], rtol=1e-7)
    np.testing.assert_allclose(slope, p * (1 - p) * x[0].T * [[-1, 0, 0, 1]], rtol=1e-6)
    assert slope.dtype == routing.probabilities.dtype == np.float32


def test_a_stream_of_bfloat16_is_routed_in_float32():
    config = config_of(4, 1)
    arrays = {"kernel": np.array([[1, 1 + 2**-12, 0, 0]], np.float32)}
    router = router_of(config, arrays)
    routing, _ = router(jnp.ones((1, 1, 1), jnp.bfloat16), Context())
    assert routing.ids.tolist() == [[[1]]]
    assert routing.probabilities.dtype == np.float32
