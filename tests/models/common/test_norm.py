import jax.numpy as jnp
import numpy as np
import pytest

from mjx.errors import InputError
from mjx.models.common.norm import Norm, NormConfig
from mjx.models.common.parameter import bind, flatten, logical_axes_of, parameters_of

X = (10 + 3 * np.random.RandomState(0).randn(4, 5, 24)).astype(np.float32)
GAIN, SHIFT = np.random.RandomState(1).randn(2, 24).astype(np.float32)


def filled(config: NormConfig) -> Norm:
    norm = Norm(config, {"embed": 24})
    gain = GAIN - 1 if config.zero_centered else GAIN
    return bind(norm, {"scale": gain, "bias": SHIFT} if config.kind == "layernorm" else {"scale": gain})


def by_hand(x: np.ndarray, config: NormConfig) -> np.ndarray:
    x = x.astype(np.float64)
    if config.kind == "rmsnorm":
        return GAIN * x / np.sqrt((x**2).mean(-1, keepdims=True) + config.epsilon)
    return GAIN * (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + config.epsilon) + SHIFT


@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
@pytest.mark.parametrize("zero_centered", [False, True])
@pytest.mark.parametrize("epsilon", [1e-5, 0.5])
def test_equals_the_definition_to_1e_5(kind, zero_centered, epsilon):
    config = NormConfig(kind=kind, zero_centered=zero_centered, epsilon=epsilon)
    np.testing.assert_allclose(filled(config)(jnp.asarray(X)), by_hand(X, config), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
def test_statistics_of_bfloat16_are_taken_in_float32(kind):
    config = NormConfig(kind=kind)
    x = jnp.asarray(X, jnp.bfloat16)
    y = filled(config)(x)
    assert y.dtype == jnp.bfloat16
    exact = by_hand(np.asarray(x, np.float32), config)
    np.testing.assert_allclose(np.asarray(y, np.float32), exact, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
@pytest.mark.parametrize("zero_centered", [False, True])
def test_a_fresh_norm_has_gain_one_and_shift_zero(kind, zero_centered):
    norm = Norm(NormConfig(kind=kind, zero_centered=zero_centered), {"embed": 24})
    y = np.asarray(norm(jnp.asarray(X)))
    np.testing.assert_allclose((y**2).mean(-1), 1, rtol=1e-4)
    stored = flatten(parameters_of(norm))
    assert float(stored["scale"][0]) == (0 if zero_centered else 1)
    assert sum(leaf.size for leaf in stored.values()) == norm.config.num_parameters(24)


@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
def test_several_axes_are_normalised_as_one(kind):
    config = NormConfig(kind=kind)
    norm = Norm(config, {"heads": 4, "head_dim": 6})
    values = {"scale": GAIN.reshape(4, 6), "bias": SHIFT.reshape(4, 6)}
    assert logical_axes_of(norm)["scale"] == ("heads", "head_dim")
    norm = bind(norm, {name: values[name] for name in parameters_of(norm)})
    y = norm(jnp.asarray(X.reshape(4, 5, 4, 6)))
    np.testing.assert_allclose(y.reshape(X.shape), by_hand(X, config), rtol=1e-5, atol=2e-5)


def test_epsilon_must_be_positive():
    with pytest.raises(InputError, match=r"norm\.epsilon = 0 must be positive"):
        NormConfig(epsilon=0)
