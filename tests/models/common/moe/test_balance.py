"""What balances experts, against float64: losses of tokens that count, statistics, and biases' steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import moe as reference
from routers import MASK, config_of, context, logits_of, parameters, router_of

from mjx.models.common.context import Context
from mjx.models.common.moe.balance import left_out
from mjx.models.report import Statistic

WEIGHTS = {
    "load_balancing_loss": 0.3,
    "sequence_load_balancing_loss": 0.2,
    "global_load_balancing_loss": 0.1,
    "router_z_loss": 0.01,
}
LOSSES = {("z_loss" if name == "router_z_loss" else name): weight for name, weight in WEIGHTS.items()}
CONFIGS = {
    "softmax": config_of(router=LOSSES),
    "softmax, of all, groups": config_of(
        top_k=4, router={**LOSSES, "normalized": False, "groups": 4, "top_groups": 2}
    ),
    "sigmoid": config_of(router={**LOSSES, "scores": "sigmoid"}),
    "sigmoid, expert bias": config_of(router={**LOSSES, "scores": "sigmoid", "expert_bias_rate": 1e-2}),
    "sqrt-softplus, capacity": config_of(router={**LOSSES, "scores": "sqrt-softplus"}, capacity_factor=0.6),
}
DOCUMENTS = np.array([[1, 1, 1, 2, 2, 2, 2], [1, 2, 2, 2, 3, 3, 3]])


@pytest.mark.parametrize("documents", [None, DOCUMENTS], ids=["rows", "documents"])
@pytest.mark.parametrize("name", CONFIGS)
def test_losses_are_those_of_the_formula_over_tokens_that_count(name, documents):
    config = CONFIGS[name]
    arrays, x = parameters(config), logits_of(config)
    _, said = router_of(config, arrays)(x, context(segment_ids=documents))
    routes = reference.route(config, arrays, x, counted=MASK, training=True)
    expected = reference.losses(config, routes, MASK, segment_ids=documents)
    assert said.losses.keys() == expected.keys()
    for loss, value in expected.items():
        np.testing.assert_allclose(said.losses[loss], WEIGHTS[loss] * value, rtol=1e-5, err_msg=loss)
        np.testing.assert_allclose(said.statistics[loss].array, MASK.sum() * value, rtol=1e-5, err_msg=loss)
    chosen = (routes.ids[..., None] == np.arange(config.experts)) * MASK[..., None, None]
    np.testing.assert_array_equal(said.statistics["load"].array, chosen.sum((0, 1, 2)))
    dropped = (chosen * ~routes.kept[..., None]).sum((0, 1, 2))
    np.testing.assert_array_equal(said.statistics["dropped"].array, dropped)
    assert (dropped.sum() > 0) == (config.capacity_factor is not None)


def test_the_global_loss_has_the_shares_of_all_microbatches_so_far():
    config = config_of(router={"global_load_balancing_loss": 1.0})
    arrays, earlier = parameters(config), None
    router, so_far = router_of(config, arrays), None
    for seed in range(3):
        x = logits_of(config, seed=seed)
        _, said = router(x, context(so_far=so_far))
        routes = reference.route(config, arrays, x)
        expected = reference.losses(config, routes, MASK, earlier=earlier)["global_load_balancing_loss"]
        np.testing.assert_allclose(said.losses["global_load_balancing_loss"], expected, rtol=1e-5)
        so_far = (
            said.statistics if so_far is None else {k: v.join(so_far[k]) for k, v in said.statistics.items()}
        )
        earlier = np.asarray(so_far["chosen"].array, np.float64), float(so_far["tokens"].array)
    assert earlier[1] == 3 * MASK.sum()


def test_evenly_loaded_experts_have_a_loss_of_1_and_a_quarter_that_gets_all_one_of_4():
    config = config_of(8, 2, router={"load_balancing_loss": 1.0, "scores": "sigmoid"})
    router = router_of(config, parameters(config))
    counted = np.zeros_like(MASK)
    counted[:, :4] = 1
    x = np.full((*MASK.shape, 8), -40.0, np.float32)
    for row, place in np.ndindex(2, 4):  # two of the experts for each of eight tokens, each expert twice
        first = 2 * place
        x[row, place, first : first + 2] = 40
    alike = np.broadcast_to(x[:1, :1], x.shape)
    for read, loss in ((x, 1.0), (alike, 4.0)):  # 8 experts of which 2 get all
        _, said = router(read, context(counted=jnp.asarray(counted)))
        np.testing.assert_allclose(said.losses["load_balancing_loss"], loss, rtol=1e-6)


@pytest.mark.parametrize("counted", [MASK, np.zeros_like(MASK)], ids=["some", "none"])
def test_tokens_that_do_not_count_get_no_gradient(counted):
    config = CONFIGS["sigmoid, expert bias"]
    router = router_of(config, parameters(config))

    def loss(x):
        _, said = router(x, context(counted=jnp.asarray(counted)))
        return sum(said.losses.values())

    slope = np.asarray(jax.grad(loss)(jnp.asarray(logits_of(config))))
    np.testing.assert_array_equal(slope.any(-1), counted > 0)
    assert np.isfinite(slope).all()


def test_nothing_is_said_where_nothing_is_counted():
    config = CONFIGS["softmax"]
    _, said = router_of(config, parameters(config))(logits_of(config), Context())
    assert said == ({}, {})


def test_after_a_step_biases_move_by_the_rate_towards_the_mean():
    config = config_of(4, router={"scores": "sigmoid", "expert_bias_rate": 0.25})
    before = {"router": {"expert_bias": jnp.array([0.0, 1.0, 0.0, -1.0])}, "experts": {}}
    statistics = {"load": jnp.array([5.0, 1.0, 3.0, 6.0]), "dropped": jnp.array([0.0, 0.0, 0.0, 3.0])}
    after = config.after_step(before, statistics)
    np.testing.assert_array_equal(after["router"]["expert_bias"], [-0.25, 1.25, 0.0, -1.0])
    unbiased = config_of()
    assert unbiased.after_step(before, statistics) is before
    summary = {name: float(each.array) for name, each in config.summary(statistics).items()}
    assert summary == pytest.approx({"expert_load_max": 1.6, "expert_load_min": 4 / 15, "choices_dropped": 3})


def test_choices_without_a_cell_count_as_dropped_where_their_token_counts():
    ids = np.array([[[0, 1]] * MASK.shape[1]] * 2)
    missed = np.zeros(ids.shape, bool)
    missed[:, 3:, 1] = True
    statistics = {"dropped": Statistic(jnp.array([1.0, 0.0, 0.0]))}
    dropped = left_out(statistics, ids, missed, context())["dropped"].array
    np.testing.assert_array_equal(dropped, [1, MASK[:, 3:].sum(), 0])
    assert left_out(statistics, ids, None, context()) is statistics
