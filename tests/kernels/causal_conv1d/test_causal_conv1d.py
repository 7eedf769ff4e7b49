"""The causal convolution against the sum it is, and its gradients against finite differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from reference import recurrences

from mjx.errors import InputError
from mjx.kernels.causal_conv1d import causal_conv1d, causal_conv1d_step

BATCH, LENGTH, CHANNELS = 2, 11, 6
SEGMENTS = np.array([[0] * 2 + [1] * 2 + [2] + [7] * 5 + [0], [3] * 5 + [1] * 4 + [3] * 2])
FEATURES = {
    "nothing": {},
    "bias": {"bias": True},
    "silu": {"bias": True, "activation": "silu"},
    "states": {"initial_state": True},
    "segments": {"segment_ids": SEGMENTS},
    "everything": {"bias": True, "activation": "silu", "initial_state": True, "segment_ids": SEGMENTS},
}


CASES = pytest.mark.parametrize(
    ("feature", "width", "length"),
    [*((feature, 4, LENGTH) for feature in FEATURES), ("everything", 2, LENGTH), ("states", 4, 2)],
)


def inputs(*, width=4, length=LENGTH, bias=False, initial_state=False, **options):
    random = np.random.RandomState(0)
    arrays = {"x": random.randn(BATCH, length, CHANNELS), "weight": random.randn(CHANNELS, width)}
    if bias:
        arrays["bias"] = random.randn(CHANNELS)
    if initial_state:
        arrays["initial_state"] = random.randn(BATCH, width - 1, CHANNELS)
    return {name: array.astype(np.float32) for name, array in arrays.items()}, options


def with_gradients(function, arrays):
    """Output, final state, and the gradients of a weighted sum of both."""

    def total(arrays):
        y, state = function(**arrays)
        weights = np.random.RandomState(1)
        loss = jnp.sum(y * weights.randn(*y.shape)) + jnp.sum(state * weights.randn(*state.shape))
        return loss, {"y": y, "state": state}

    gradients, out = jax.jit(jax.grad(total, has_aux=True))(arrays)
    return {**out, **{f"gradient of {name}": gradient for name, gradient in gradients.items()}}


@CASES
def test_it_is_the_sum_over_the_last_tokens(feature, width, length):
    arrays, options = inputs(width=width, length=length, **FEATURES[feature])
    ours = causal_conv1d(**arrays, **options, return_final_state=True)
    for got, expected in zip(ours, recurrences.causal_conv1d(**arrays, **options), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_packed_documents_equal_separate_ones():
    arrays, options = inputs(**FEATURES["everything"])
    packed = jax.jit(functools.partial(causal_conv1d, **options))(**arrays)
    shared = {"weight": arrays["weight"], "bias": arrays["bias"], "activation": "silu"}
    for begin, end in ((4, 5), (5, 10)):
        alone = causal_conv1d(arrays["x"][:1, begin:end], **shared)
        np.testing.assert_allclose(packed[0, begin:end], alone[0], atol=1e-6)


def test_what_stands_in_padding_reaches_neither_results_nor_gradients():
    arrays, options = inputs(**FEATURES["everything"])
    function = functools.partial(causal_conv1d, return_final_state=True, **options)
    poisoned = {**arrays, "x": np.where(SEGMENTS[..., None] == 0, np.float32(np.nan), arrays["x"])}
    clean = with_gradients(function, arrays)
    for name, result in with_gradients(function, poisoned).items():
        np.testing.assert_array_equal(result, clean[name], err_msg=name)
    np.testing.assert_array_equal(np.asarray(clean["y"])[SEGMENTS == 0], 0)


def test_a_row_of_padding_keeps_its_state():
    arrays, options = inputs(**{**FEATURES["everything"], "segment_ids": np.zeros((BATCH, LENGTH), int)})
    y, state = causal_conv1d(**arrays, **options, return_final_state=True)
    np.testing.assert_array_equal(y, 0)
    np.testing.assert_array_equal(state, arrays["initial_state"])


@pytest.mark.parametrize("cut", [1, 7])
def test_two_halves_that_hand_over_the_state_equal_the_whole_with_gradients(cut):
    arrays, _ = inputs(bias=True, initial_state=True)

    def halves(x, weight, bias, initial_state):
        first, state = causal_conv1d(
            x[:, :cut], weight, bias, initial_state=initial_state, return_final_state=True
        )
        second, state = causal_conv1d(x[:, cut:], weight, bias, initial_state=state, return_final_state=True)
        return jnp.concatenate([first, second], axis=1), state

    whole = with_gradients(functools.partial(causal_conv1d, return_final_state=True), arrays)
    for name, array in with_gradients(halves, arrays).items():
        np.testing.assert_allclose(array, whole[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_token_by_token_equals_the_whole():
    arrays, options = inputs(bias=True, activation="silu")
    whole, final = causal_conv1d(**arrays, **options, return_final_state=True)
    step = jax.jit(functools.partial(causal_conv1d_step, **options))
    state = np.zeros((BATCH, 3, CHANNELS), np.float32)
    for token in range(LENGTH):
        y, state = step(state, arrays["x"][:, token], arrays["weight"], arrays["bias"])
        np.testing.assert_allclose(y, whole[:, token], atol=1e-6)
    np.testing.assert_array_equal(state, final)


def test_a_width_of_one_has_no_past():
    arrays, _ = inputs(width=1)
    y, state = causal_conv1d(**arrays, segment_ids=SEGMENTS, return_final_state=True)
    expected = np.where(SEGMENTS[..., None] == 0, 0, arrays["x"] * arrays["weight"][:, 0])
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    assert state.shape == (BATCH, 0, CHANNELS)


def test_bfloat16_is_rounded_once_at_the_end():
    arrays, options = inputs(bias=True, activation="silu", initial_state=True)
    rounded = {name: jnp.asarray(array, jnp.bfloat16) for name, array in arrays.items()}
    ours, state = jax.jit(functools.partial(causal_conv1d, **options, return_final_state=True))(**rounded)
    assert ours.dtype == state.dtype == jnp.bfloat16
    wide = {name: np.asarray(array, np.float32) for name, array in rounded.items()}
    exact, _ = recurrences.causal_conv1d(**wide, **options)
    np.testing.assert_allclose(ours.astype(jnp.float32), exact, rtol=2**-8, atol=1e-6)


@CASES
def test_gradients_are_those_of_finite_differences(feature, width, length):
    arrays, options = inputs(width=width, length=length, **FEATURES[feature])
    with jax.enable_x64(True):
        arrays = {name: jnp.asarray(array, jnp.float64) for name, array in arrays.items()}
        call = jax.jit(lambda arrays: causal_conv1d(**arrays, **options, return_final_state=True))
        check_grads(call, (arrays,), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"x": np.ones((BATCH, CHANNELS), np.float32)}, r"x has shape \(2, 6\).*batch, sequence, channels"),
        (
            {"weight": np.ones((CHANNELS, 1, 4), np.float32)},
            r"weight has shape \(6, 1, 4\).*channels = 6, width",
        ),
        ({"weight": np.ones((4, CHANNELS), np.float32)}, r"weight has shape \(4, 6\).*channels = 6"),
        ({"bias": np.ones(5, np.float32)}, r"bias has shape \(5,\)"),
        ({"initial_state": np.ones((BATCH, 4, CHANNELS), np.float32)}, r"initial_state .*\(2, 3, 6\)"),
        ({"segment_ids": np.ones((BATCH, 3), np.int32)}, r"segment_ids has shape \(2, 3\)"),
        ({"weight": np.ones((CHANNELS, 4), np.int32)}, r"weight is int32"),
        ({"activation": "gelu"}, r"activation = 'gelu'"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(changes, said):
    arrays, _ = inputs()
    with pytest.raises(InputError, match=f"^causal_conv1d: .*{said}"):
        causal_conv1d(**{**arrays, **changes})
