"""What state-space sub-layers begin as, what they refuse, and what they say of their cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from state_space_cases import X, config_of, filled

from mjx.errors import InputError
from mjx.models.common.context import Context
from mjx.models.common.parameter import logical_axes_of, parameters_of
from mjx.models.common.pattern import CacheSizes, Lengths
from mjx.models.common.state_space import SelectiveScanConfig, SSDConfig, TimeStepConfig
from mjx.training.parameter_kinds import parameter_kind
from mjx.trees import flatten


def begun(config, embed: int) -> dict[str, np.ndarray]:
    layer = config.resolve(embed).build(embed, std=0.02, output_std=0.01, rngs=nnx.Rngs(jax.random.key(0)))
    return {path: np.asarray(leaf) for path, leaf in flatten(parameters_of(layer)).items()}


def test_decays_and_steps_begin_spread_over_their_ranges():
    config = SSDConfig(head_dim=1, groups=1, state=4, dt=TimeStepConfig(min=1e-2, max=1.0, floor=2e-2))
    values = begun(config, 512)
    rates, steps = np.exp(values["A_log"]), np.log1p(np.exp(values["dt_bias"]))
    assert 1 <= rates.min() < 1.2 < 15.8 < rates.max() <= 16
    assert abs(rates.mean() - 8.5) < 0.5
    assert steps.min() == pytest.approx(2e-2, rel=1e-4)
    assert 0.9 < steps.max() <= 1 + 1e-5
    assert np.median(steps) == pytest.approx(0.1, rel=0.25)  # even in the logarithm
    assert (values["D"] == 1).all()
    assert 0.45 < np.abs(values["value_conv.kernel"]).max() <= 0.5
    assert values["output.kernel"].std() == pytest.approx(0.01, rel=0.1)


def test_a_scans_decays_begin_as_the_numbers_of_the_states():
    values = begun(SelectiveScanConfig(state=6, dt_scale=2.0), 64)
    np.testing.assert_allclose(np.exp(values["A_log"]), np.tile(np.arange(1, 7), (128, 1)), rtol=1e-6)
    assert values["dt"].shape == (4, 128)
    assert 0.95 < np.abs(values["dt"]).max() <= 1
    constant = begun(SelectiveScanConfig(state=6, dt_weights="constant"), 64)
    assert (constant["dt"] == 0.5).all()


@pytest.mark.parametrize("kind", ["ssd", "selective_scan"])
def test_in_bfloat16_states_stay_float32_and_what_is_small_decays_not(kind):
    config = config_of(kind, {"ssd": "several groups", "selective_scan": "plain"}[kind])
    layer, _ = filled(config)
    assert jax.eval_shape(lambda x: layer(x, Context()).y, X.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    cache = config.init_cache(CacheSizes(2, 10_000), jnp.bfloat16)
    assert cache.state.dtype == jnp.float32
    assert cache.past["value"].dtype == jnp.bfloat16
    assert sum(leaf.size for leaf in jax.tree.leaves(cache)) < 1000  # however many tokens there are
    axes = flatten(logical_axes_of(layer))
    vectors = {path for path, names in axes.items() if parameter_kind(names) == "vector"}
    assert {"A_log", "D", "dt_bias"} <= vectors
    assert not [path for path in vectors if path.endswith(("gate.kernel", "output.kernel"))]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: SSDConfig(heads=6, groups=4),
            r"ssd\.groups = 4 does not divide ssd\.heads = 6 \(choose 1, 2, 3 or 6\)",
        ),
        (
            lambda: SSDConfig(head_dim=64).resolve(100),
            r"ssd\.head_dim = 64 does not divide ssd\.expand × hidden_size = 200; choose a divisor",
        ),
        (
            lambda: SSDConfig(groups=3, head_dim=8).resolve(32),
            r"ssd\.groups = 3 does not divide ssd\.heads = 8",
        ),
        (
            lambda: SSDConfig(heads=4, groups=4, head_dim=2, norm_groups=3),
            "norm_groups = 3 does not divide the 8",
        ),
        (lambda: SSDConfig(decay_range=(0.0, 1.0)), r"ssd\.decay_range = \[0\.0, 1\.0\]"),
        (lambda: SSDConfig(state=0), r"ssd\.state = 0 must be positive"),
        (lambda: TimeStepConfig(min=1.0, max=0.1), r"dt\.min = 1\.0 must not be above dt\.max = 0\.1"),
        (lambda: TimeStepConfig(limit=(1.0, 0.5)), r"dt\.limit = \[1\.0, 0\.5\]"),
        (lambda: SelectiveScanConfig(dt_rank=0), r"selective_scan\.dt_rank = 0 must be positive"),
        (
            lambda: SelectiveScanConfig(inner_norm_gain=False),
            r"inner_norm_gain = false needs selective_scan\.inner_norm",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()


def test_flops_are_projections_and_what_states_take_and_give():
    ssd = SSDConfig(state=16, head_dim=8, groups=2).resolve(32)  # 64 features in 8 heads
    projections = 32 * (64 + 64 + 2 * 2 * 16 + 8) + 64 * 32
    assert ssd.flops_per_token(32, Lengths(99)) == 2 * projections + 4 * 64 * 16
    scan = SelectiveScanConfig(state=16, dt_rank=3).resolve(32)
    projections = 32 * 128 + 64 * (3 + 2 * 16) + 3 * 64 + 64 * 32
    assert scan.flops_per_token(32, Lengths(99)) == 2 * projections + 4 * 64 * 16
