import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.norm import norm

from mjx.errors import InputError
from mjx.models.common.norm import Norm, NormConfig
from mjx.models.common.parameter import bind, logical_axes_of, parameters_of
from mjx.trees import flatten

X = (10 + 3 * np.random.RandomState(0).randn(4, 5, 24)).astype(np.float32)
GAIN, SHIFT = np.random.RandomState(1).randn(2, 24).astype(np.float32)


def stored(config: NormConfig) -> dict[str, np.ndarray]:
    """What the norm keeps of the gain and the shift."""
    gain = {"scale": GAIN - 1 if config.zero_centered else GAIN}
    return gain | {"bias": SHIFT} if config.kind == "layernorm" else gain


def filled(config: NormConfig) -> Norm:
    return bind(Norm(config, {"embed": 24}), stored(config))


@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
@pytest.mark.parametrize("zero_centered", [False, True])
@pytest.mark.parametrize("epsilon", [1e-5, 0.5])
def test_equals_the_definition_to_1e_5(kind, zero_centered, epsilon):
    config = NormConfig(kind=kind, zero_centered=zero_centered, epsilon=epsilon)
    np.testing.assert_allclose(
        filled(config)(jnp.asarray(X)), norm(config, stored(config), X), rtol=1e-5, atol=2e-5
    )


@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
def test_statistics_of_bfloat16_are_taken_in_float32(kind):
    config = NormConfig(kind=kind)
    x = jnp.asarray(X, jnp.bfloat16)
    y = filled(config)(x)
    assert y.dtype == jnp.bfloat16
    exact = norm(config, stored(config), np.asarray(x, np.float32))
    np.testing.assert_allclose(np.asarray(y, np.float32), exact, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
@pytest.mark.parametrize("zero_centered", [False, True])
def test_a_fresh_norm_has_gain_one_and_shift_zero(kind, zero_centered):
    fresh = Norm(NormConfig(kind=kind, zero_centered=zero_centered), {"embed": 24})
    y = np.asarray(fresh(jnp.asarray(X)))
    np.testing.assert_allclose((y**2).mean(-1), 1, rtol=1e-4)
    parameters = flatten(parameters_of(fresh))
    assert float(parameters["scale"][0]) == (0 if zero_centered else 1)
    assert sum(leaf.size for leaf in parameters.values()) == (48 if kind == "layernorm" else 24)


@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
def test_several_axes_are_normalised_as_one(kind):
    config = NormConfig(kind=kind)
    layer = Norm(config, {"heads": 4, "head_dim": 6})
    values = {name: value.reshape(4, 6) for name, value in stored(config).items()}
    assert logical_axes_of(layer)["scale"] == ("heads", "head_dim")
    x = X.reshape(4, 5, 4, 6)
    y = bind(layer, values)(jnp.asarray(x))
    np.testing.assert_allclose(y, norm(config, values, x, axes=(-2, -1)), rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(y.reshape(X.shape), norm(config, stored(config), X), rtol=1e-5, atol=2e-5)


def test_epsilon_must_be_positive():
    with pytest.raises(InputError, match=r"norm\.epsilon = 0 must be positive"):
        NormConfig(epsilon=0)


@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
def test_the_least_epsilon_has_finite_gradients_where_a_row_is_zero(kind):
    with pytest.raises(InputError, match=r"norm\.epsilon = 1e-26 must be from 1e-20"):
        NormConfig(epsilon=1e-26)
    layer = filled(NormConfig(kind=kind, epsilon=1e-20))
    gradient = jax.grad(lambda x: jnp.sum(layer(x) ** 2))(jnp.zeros((2, 24)))
    assert np.isfinite(gradient).all()
