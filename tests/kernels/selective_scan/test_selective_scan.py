"""Every implementation of the selective scan against the recurrence, forward and every gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from reference import recurrences

from mjx.errors import InputError
from mjx.kernels.selective_scan import selective_scan, selective_scan_step, xla
from mjx.kernels.selective_scan.recurrence import associative, linear_recurrence, sequential

IMPLEMENTATIONS = ["reference", "xla"]
BATCH, LENGTH, CHANNELS, STATE = 2, 37, 6, 4
SEGMENTS = np.array([[0] * 2 + [1] * 9 + [2] * 1 + [7] * 17 + [0] * 8, [3] * 16 + [1] * 16 + [3] * 5])
FEATURES = {
    "nothing": {},
    "D and gate": {"D": True, "z": True},
    "bias and softplus": {"delta_bias": True, "delta_softplus": True},
    "states": {"initial_state": True},
    "segments": {"segment_ids": SEGMENTS},
    "everything": {
        **dict.fromkeys(("D", "z", "delta_bias", "delta_softplus", "initial_state"), True),
        "segment_ids": SEGMENTS,
    },
}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(xla, "CHUNK_SIZE", 8)


def inputs(*, length=LENGTH, D=False, z=False, delta_bias=False, initial_state=False, **options):
    """Differentiable arrays by name, and the options that are none."""
    random = np.random.RandomState(0)
    arrays = {
        "u": random.randn(BATCH, length, CHANNELS),
        "delta": np.abs(random.randn(BATCH, length, CHANNELS)),
        "A": -np.exp(random.randn(CHANNELS, STATE)),
        "B": random.randn(BATCH, length, STATE),
        "C": random.randn(BATCH, length, STATE),
    }
    if D:
        arrays["D"] = random.randn(CHANNELS)
    if z:
        arrays["z"] = random.randn(BATCH, length, CHANNELS)
    if delta_bias:
        arrays["delta_bias"] = random.randn(CHANNELS)
    if initial_state:
        arrays["initial_state"] = random.randn(BATCH, CHANNELS, STATE)
    return {name: array.astype(np.float32) for name, array in arrays.items()}, options


def gradients_of(*, segment_ids=None, **options):
    """A function of the arrays: output, final state, and gradients of a weighted sum of both."""
    return functools.partial(_gradients, tuple(options.items()), segment_ids)


@functools.partial(jax.jit, static_argnums=0)  # once for all inputs of the same shapes
def _gradients(options, segment_ids, arrays):
    def total(arrays):
        y, state = selective_scan(**arrays, **dict(options), segment_ids=segment_ids, return_final_state=True)
        weights = np.random.RandomState(1)
        loss = jnp.sum(y.astype(jnp.float32) * weights.randn(*y.shape)) + jnp.sum(
            state * weights.randn(*state.shape)
        )
        return loss, {"y": y, "state": state}

    gradients, out = jax.grad(total, has_aux=True)(arrays)
    return {**out, **{f"gradient of {name}": gradient for name, gradient in gradients.items()}}


def assert_close(ours, theirs, relative=1e-5):
    """Relative to the largest magnitude of each array."""
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        expected = np.asarray(expected, np.float64)
        assert np.isfinite(expected).all(), name
        scale = np.abs(expected).max()
        np.testing.assert_allclose(ours[name], expected, rtol=0, atol=relative * scale, err_msg=name)


@pytest.mark.parametrize("feature", FEATURES)
def test_the_reference_equals_numpy(feature):
    arrays, options = inputs(**FEATURES[feature])
    ours = selective_scan(**arrays, **options, return_final_state=True, implementation="reference")
    expected = recurrences.selective_scan(**arrays, **options)
    assert_close(*(dict(zip(("y", "state"), pair, strict=True)) for pair in (ours, expected)))


@pytest.mark.parametrize(("feature", "length"), [*((feature, LENGTH) for feature in FEATURES), ("states", 1)])
def test_xla_equals_the_recurrence_with_every_gradient(feature, length):
    arrays, options = inputs(length=length, **FEATURES[feature])
    ours = gradients_of(**options, implementation="xla")(arrays)
    assert_close(ours, gradients_of(**options, implementation="reference")(arrays))


@pytest.mark.parametrize("reverse", [False, True])
def test_the_associative_scan_of_other_devices_equals_the_loop_of_the_cpu(reverse):
    random = np.random.RandomState(0)
    a, b = random.rand(13, 2, 3).astype(np.float32), random.randn(13, 2, 3).astype(np.float32)
    a[5] = 0  # a document begins
    np.testing.assert_allclose(
        jax.jit(functools.partial(associative, reverse=reverse))(a, b),
        sequential(a, b, reverse=reverse),
        atol=1e-6,
    )


def test_the_recurrence_lowers_for_gpus_without_a_loop():
    a = jnp.ones((16, 2, 3))
    traced = jax.jit(linear_recurrence).trace(a, a, a[0])
    assert "while" not in traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "while" in traced.lower(lowering_platforms=("cpu",)).as_text()


def test_automatic_choice_is_xla():
    arrays, options = inputs(**FEATURES["everything"])
    text = [
        jax.jit(functools.partial(selective_scan, **options, implementation=name)).lower(**arrays).as_text()
        for name in ("auto", "xla")
    ]
    assert text[0] == text[1]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_packed_documents_equal_separate_ones(implementation):
    """Each by itself, token by token in NumPy."""
    arrays, options = inputs(**FEATURES["everything"])
    given = {"implementation": implementation, "return_final_state": True}
    packed, final = jax.jit(functools.partial(selective_scan, **options, **given))(**arrays)
    del options["segment_ids"]
    np.testing.assert_array_equal(np.asarray(packed)[SEGMENTS == 0], 0)
    per_token = ("u", "delta", "B", "C", "z")
    for row, pieces in enumerate(([(2, 11), (11, 12), (12, 29)], [(0, 16), (16, 32), (32, 37)])):
        for begin, end in pieces:
            alone = {
                name: array[row : row + 1, begin:end] if name in per_token else array
                for name, array in arrays.items()
            }
            past = arrays["initial_state"][row : row + 1]
            alone["initial_state"] = past if begin == pieces[0][0] else np.zeros_like(past)
            y, state = recurrences.selective_scan(**alone, **options)
            np.testing.assert_allclose(packed[row, begin:end], y[0], atol=1e-5)
        np.testing.assert_allclose(final[row], state[0], atol=1e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_what_stands_in_padding_reaches_neither_results_nor_gradients(implementation):
    arrays, options = inputs(**FEATURES["everything"])
    run = gradients_of(**options, implementation=implementation)
    clean = run(arrays)
    poisoned = dict(arrays)
    for name in ("u", "delta", "B", "C", "z"):
        poisoned[name] = arrays[name].copy()
        poisoned[name][SEGMENTS == 0] = np.nan
    for name, result in run(poisoned).items():
        np.testing.assert_array_equal(result, clean[name], err_msg=name)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_row_of_padding_keeps_its_state(implementation):
    arrays, _ = inputs(initial_state=True, D=True)
    segments = np.zeros((BATCH, LENGTH), np.int32)
    y, state = selective_scan(
        **arrays, segment_ids=segments, return_final_state=True, implementation=implementation
    )
    np.testing.assert_array_equal(y, 0)
    np.testing.assert_array_equal(state, arrays["initial_state"])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_two_halves_that_hand_over_the_state_equal_the_whole_with_gradients(implementation):
    arrays, _ = inputs(z=True, initial_state=True)
    weight = np.random.RandomState(2).randn(BATCH, LENGTH, CHANNELS)

    def whole(arrays):
        y = selective_scan(**arrays, implementation=implementation)
        return jnp.sum(y * weight), y

    def halves(arrays):
        parts, state = [], arrays["initial_state"]
        for part in (slice(None, 21), slice(21, None)):
            piece = {name: arrays[name][:, part] for name in ("u", "delta", "B", "C", "z")}
            y, state = selective_scan(
                **piece,
                A=arrays["A"],
                initial_state=state,
                return_final_state=True,
                implementation=implementation,
            )
            parts.append(y)
        y = jnp.concatenate(parts, axis=1)
        return jnp.sum(y * weight), y

    (gradients, y), (expected_gradients, expected) = (
        jax.jit(jax.grad(f, has_aux=True))(arrays) for f in (halves, whole)
    )
    assert_close({**gradients, "y": y}, {**expected_gradients, "y": expected})


@pytest.mark.parametrize("feature", ["nothing", "everything"])
def test_token_by_token_equals_the_whole(feature):
    arrays, _ = inputs(**{**FEATURES[feature], "segment_ids": None})
    softplus = feature == "everything"
    whole, final = jax.jit(
        functools.partial(selective_scan, delta_softplus=softplus, return_final_state=True)
    )(**arrays)
    state = arrays.get("initial_state", np.zeros((BATCH, CHANNELS, STATE), np.float32))
    shared = {name: arrays[name] for name in ("A", "D", "delta_bias") if name in arrays}
    step = jax.jit(lambda state, now: selective_scan_step(state, **now, **shared, delta_softplus=softplus))
    for token in range(LENGTH):
        now = {name: arrays[name][:, token] for name in ("u", "delta", "B", "C", "z") if name in arrays}
        y, state = step(state, now)
        np.testing.assert_allclose(y, whole[:, token], atol=1e-5)
    np.testing.assert_allclose(state, final, atol=1e-5)


def test_bfloat16_adds_no_more_error_than_rounding_the_inputs_did():
    exact, options = inputs(z=True, D=True, initial_state=True)
    rounded = {
        name: array.astype(jnp.bfloat16) if name in ("u", "B", "C", "z") else array
        for name, array in exact.items()
    }
    wide = {name: np.asarray(array, np.float32) for name, array in rounded.items()}
    reference = gradients_of(**options, implementation="reference")
    best, before_rounding = reference(wide), reference(exact)
    ours = gradients_of(**options, implementation="xla")(rounded)
    assert ours["y"].dtype == jnp.bfloat16
    assert ours["state"].dtype == jnp.float32
    for name, expected in best.items():

        def error(result, exact=expected):
            return np.sqrt(np.mean(np.square(np.asarray(result, np.float32) - exact)))

        assert error(ours[name]) <= 2 * error(before_rounding[name]), name


def test_gradients_of_the_recurrence_are_those_of_finite_differences():
    arrays, options = inputs(length=10, **{**FEATURES["everything"], "segment_ids": SEGMENTS[:, 8:18]})
    with jax.enable_x64(True):
        arrays = {name: jnp.asarray(array, jnp.float64) for name, array in arrays.items()}
        options |= {"return_final_state": True, "implementation": "reference"}
        call = jax.jit(lambda arrays: selective_scan(**arrays, **options))
        assert call(arrays)[0].dtype == jnp.float64
        check_grads(call, (arrays,), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


def test_memory_of_the_backward_pass_is_bounded_by_one_chunk_and_a_state_per_chunk():
    def temporary(length, implementation):
        arrays, _ = inputs(length=length)
        loss = lambda arrays: jnp.sum(selective_scan(**arrays, implementation=implementation))  # noqa: E731
        return jax.jit(jax.grad(loss)).lower(arrays).compile().memory_analysis().temp_size_in_bytes

    short, long = temporary(1024, "xla"), temporary(4096, "xla")
    assert long <= 4.2 * short
    assert long < temporary(4096, "reference") / 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"delta": np.ones((BATCH, 5, CHANNELS), np.float32)}, r"delta has shape \(2, 5, 6\).*sequence = 37"),
        ({"u": np.ones((BATCH, CHANNELS), np.float32)}, r"u has shape \(2, 6\).*batch, sequence, channels"),
        ({"A": np.ones((STATE, CHANNELS), np.float32)}, r"A has shape \(4, 6\).*channels = 6"),
        ({"C": np.ones((BATCH, LENGTH, 3), np.float32)}, r"C has shape .*state = 4"),
        ({"initial_state": np.ones((BATCH, STATE, CHANNELS), np.float32)}, r"initial_state has shape"),
        ({"segment_ids": np.ones((BATCH, LENGTH), np.float32)}, r"segment_ids is float32.*integer"),
        ({"B": jnp.ones((BATCH, LENGTH, STATE), jnp.bfloat16)}, r"B is bfloat16 and u is float32"),
        (
            {"implementation": "cuda"},
            r"no implementation 'cuda' \(choose from auto, triton, xla, reference\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(changes, said):
    arrays, _ = inputs()
    with pytest.raises(InputError, match=f"^selective_scan: .*{said}"):
        selective_scan(**{**arrays, **changes})
