"""Every implementation of state-space duality against the recurrence, forward and every gradient."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from reference import recurrences

from mjx.errors import InputError
from mjx.kernels.ssd import ssd, ssd_step

IMPLEMENTATIONS = ["reference", "xla"]
BATCH, LENGTH, HEADS, HEAD_DIM, STATE = 2, 37, 4, 8, 16
SEGMENTS = np.array([[0] * 2 + [1] * 9 + [2] * 1 + [7] * 17 + [0] * 8, [3] * 16 + [1] * 16 + [3] * 5])
FEATURES = {
    "nothing": {},
    "D and gate": {"D": (HEADS,), "z": True},
    "D of each channel": {"D": (HEADS, HEAD_DIM)},
    "bias and softplus": {"dt_bias": True, "dt_softplus": True},
    "states": {"initial_state": True},
    "segments": {"segment_ids": SEGMENTS},
    "everything": {
        "D": (HEADS,),
        "z": True,
        "dt_bias": True,
        "dt_softplus": True,
        "initial_state": True,
        "segment_ids": SEGMENTS,
    },
}


def inputs(*, groups=2, length=LENGTH, D=None, z=False, dt_bias=False, initial_state=False, **options):
    """Differentiable arrays by name, and the options that are none."""
    random = np.random.RandomState(0)
    of = lambda *shape: random.randn(*shape).astype(np.float32)  # noqa: E731
    arrays = {
        "x": of(BATCH, length, HEADS, HEAD_DIM),
        "dt": np.abs(of(BATCH, length, HEADS)),
        "A": -np.exp(of(HEADS)),
        "B": of(BATCH, length, groups, STATE),
        "C": of(BATCH, length, groups, STATE),
    }
    if D is not None:
        arrays["D"] = of(*D)
    if z:
        arrays["z"] = of(BATCH, length, HEADS, HEAD_DIM)
    if dt_bias:
        arrays["dt_bias"] = of(HEADS)
    if initial_state:
        arrays["initial_state"] = of(BATCH, HEADS, HEAD_DIM, STATE)
    return arrays, options


def gradients_of(*, segment_ids=None, **options):
    """A function of the arrays: output, final state, and gradients of a weighted sum of both."""
    return functools.partial(_gradients, tuple(options.items()), segment_ids)


@functools.partial(jax.jit, static_argnums=0)  # once for all inputs of the same shapes
def _gradients(options, segment_ids, arrays):
    def total(arrays):
        y, state = ssd(**arrays, **dict(options), segment_ids=segment_ids, return_final_state=True)
        weights = np.random.RandomState(1)
        loss = jnp.sum(y.astype(jnp.float32) * weights.randn(*y.shape)) + jnp.sum(
            state * weights.randn(*state.shape)
        )
        return loss, {"y": y, "state": state}

    gradients, out = jax.grad(total, has_aux=True)(arrays)
    return {**out, **{f"gradient of {name}": gradient for name, gradient in gradients.items()}}


def with_gradients(arrays, **options):
    return gradients_of(**options)(arrays)


@pytest.mark.parametrize(
    ("feature", "groups"), [*((feature, 2) for feature in FEATURES), ("everything", 1), ("everything", 4)]
)
def test_the_reference_equals_numpy(feature, groups):
    arrays, options = inputs(groups=groups, **FEATURES[feature])
    ours = ssd(**arrays, **options, return_final_state=True, implementation="reference")
    expected = recurrences.ssd(**arrays, **options)
    assert_close(*(dict(zip(("y", "state"), pair, strict=True)) for pair in (ours, expected)))


@functools.cache
def by_recurrence(feature, groups):
    arrays, options = inputs(groups=groups, **FEATURES[feature])
    return with_gradients(arrays, **options, implementation="reference")


def assert_close(ours, theirs, relative=1e-5):
    """Relative to the largest magnitude of each array."""
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        expected = np.asarray(expected, np.float64)
        assert np.isfinite(expected).all(), name
        scale = np.abs(expected).max()
        np.testing.assert_allclose(ours[name], expected, rtol=0, atol=relative * scale, err_msg=name)


@pytest.mark.parametrize(
    ("feature", "groups", "chunk_size"),
    [
        *itertools.product(FEATURES, [2], [16]),
        *itertools.product(["everything"], [1, 4], [16]),
        *itertools.product(["everything"], [2], [64]),
    ],
)
def test_xla_equals_the_recurrence_with_every_gradient(feature, groups, chunk_size):
    arrays, options = inputs(groups=groups, **FEATURES[feature])
    ours = with_gradients(arrays, **options, chunk_size=chunk_size, implementation="xla")
    assert_close(ours, by_recurrence(feature, groups))


@pytest.mark.parametrize("length", [1, 17])
def test_any_length_does(length):
    arrays, options = inputs(length=length, z=True, D=(HEADS,), initial_state=True)
    ours = with_gradients(arrays, **options, chunk_size=16, implementation="xla")
    assert_close(ours, with_gradients(arrays, **options, implementation="reference"))


def test_decays_that_vanish_within_a_chunk_make_neither_nan_nor_noise():
    arrays, options = inputs()
    arrays["dt"] = arrays["dt"] * 30
    ours = with_gradients(arrays, **options, chunk_size=16, implementation="xla")
    assert_close(ours, with_gradients(arrays, **options, implementation="reference"), 2e-5)


def test_automatic_choice_is_xla():
    arrays, options = inputs(**FEATURES["everything"])
    text = [
        jax.jit(functools.partial(ssd, **options, implementation=name)).lower(**arrays).as_text()
        for name in ("auto", "xla")
    ]
    assert text[0] == text[1]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_packed_documents_equal_separate_ones(implementation):
    """Each by itself, token by token in NumPy."""
    arrays, options = inputs(**FEATURES["everything"])
    given = {"implementation": implementation, "chunk_size": 8, "return_final_state": True}
    packed, final = jax.jit(functools.partial(ssd, **options, **given))(**arrays)
    del options["segment_ids"]
    np.testing.assert_array_equal(np.asarray(packed)[SEGMENTS == 0], 0)
    per_token = ("x", "dt", "B", "C", "z")
    for row, pieces in enumerate(([(2, 11), (11, 12), (12, 29)], [(0, 16), (16, 32), (32, 37)])):
        for begin, end in pieces:
            alone = {
                name: array[row : row + 1, begin:end] if name in per_token else array
                for name, array in arrays.items()
            }
            past = arrays["initial_state"][row : row + 1]
            alone["initial_state"] = past if begin == pieces[0][0] else np.zeros_like(past)
            y, state = recurrences.ssd(**alone, **options)
            np.testing.assert_allclose(packed[row, begin:end], y[0], atol=2e-5)
        np.testing.assert_allclose(final[row], state[0], atol=2e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_what_stands_in_padding_reaches_neither_results_nor_gradients(implementation):
    arrays, options = inputs(**FEATURES["everything"])
    run = gradients_of(**options, implementation=implementation, chunk_size=16)
    clean = run(arrays)
    poisoned = dict(arrays)
    for name in ("x", "dt", "B", "C", "z"):
        poisoned[name] = arrays[name].copy()
        poisoned[name][SEGMENTS == 0] = np.nan
    for name, result in run(poisoned).items():
        np.testing.assert_array_equal(result, clean[name], err_msg=name)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_row_of_padding_keeps_its_state(implementation):
    arrays, options = inputs(initial_state=True, D=(HEADS,))
    segments = np.zeros((BATCH, LENGTH), np.int32)
    options |= {"segment_ids": segments, "implementation": implementation, "return_final_state": True}
    y, state = ssd(**arrays, **options)
    np.testing.assert_array_equal(y, 0)
    np.testing.assert_array_equal(state, arrays["initial_state"])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_two_halves_that_hand_over_the_state_equal_the_whole_with_gradients(implementation):
    arrays, _ = inputs(z=True, initial_state=True)
    weight = np.random.RandomState(2).randn(BATCH, LENGTH, HEADS, HEAD_DIM)
    cut = 21

    def whole(arrays):
        y = ssd(**arrays, implementation=implementation, chunk_size=8)
        return jnp.sum(y * weight), y

    def halves(arrays):
        parts, state = [], arrays["initial_state"]
        for part in (slice(None, cut), slice(cut, None)):
            piece = {name: arrays[name][:, part] for name in ("x", "dt", "B", "C", "z")}
            y, state = ssd(
                **piece,
                A=arrays["A"],
                initial_state=state,
                return_final_state=True,
                implementation=implementation,
                chunk_size=8,
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
    options = {"dt_softplus": softplus, "return_final_state": True, "chunk_size": 16}
    whole, final = jax.jit(functools.partial(ssd, **options))(**arrays)
    state = arrays.get("initial_state", np.zeros((BATCH, HEADS, HEAD_DIM, STATE), np.float32))
    shared = {name: arrays[name] for name in ("A", "D", "dt_bias") if name in arrays}
    step = jax.jit(lambda state, now: ssd_step(state, **now, **shared, dt_softplus=softplus))
    for token in range(LENGTH):
        now = {name: arrays[name][:, token] for name in ("x", "dt", "B", "C", "z") if name in arrays}
        y, state = step(state, now)
        np.testing.assert_allclose(y, whole[:, token], atol=2e-5)
    np.testing.assert_allclose(state, final, atol=2e-5)


def test_bfloat16_adds_no_more_error_than_rounding_the_inputs_did():
    exact, options = inputs(length=64, z=True, D=(HEADS,), initial_state=True)
    rounded = {
        name: array.astype(jnp.bfloat16) if name in ("x", "B", "C", "z") else array
        for name, array in exact.items()
    }
    wide = {name: np.asarray(array, np.float32) for name, array in rounded.items()}
    reference = gradients_of(**options, implementation="reference")
    best, before_rounding = reference(wide), reference(exact)
    ours = with_gradients(rounded, **options, chunk_size=16, implementation="xla")
    assert ours["y"].dtype == jnp.bfloat16
    assert ours["state"].dtype == jnp.float32
    for name, expected in best.items():

        def error(result, exact=expected):
            return np.sqrt(np.mean(np.square(np.asarray(result, np.float32) - exact)))

        assert error(ours[name]) <= 2 * error(before_rounding[name]), name


def test_gradients_of_the_recurrence_are_those_of_finite_differences():
    arrays, options = inputs(length=7, **{**FEATURES["everything"], "segment_ids": SEGMENTS[:, 8:15]})
    with jax.enable_x64(True):
        arrays = {name: jnp.asarray(array, jnp.float64) for name, array in arrays.items()}
        options |= {"return_final_state": True, "implementation": "reference"}
        call = jax.jit(lambda arrays: ssd(**arrays, **options))
        assert call(arrays)[0].dtype == jnp.float64
        check_grads(call, (arrays,), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


def test_memory_of_the_backward_pass_is_linear_in_length_and_far_below_the_recurrence():
    def temporary(length, implementation):
        arrays, _ = inputs(length=length)
        loss = lambda arrays: jnp.sum(ssd(**arrays, chunk_size=16, implementation=implementation))  # noqa: E731
        return jax.jit(jax.grad(loss)).lower(arrays).compile().memory_analysis().temp_size_in_bytes

    short, long = temporary(1024, "xla"), temporary(4096, "xla")
    assert long <= 4.2 * short
    assert long < temporary(4096, "reference") / 5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"dt": np.ones((BATCH, 5, HEADS), np.float32)},
            r"dt has shape \(2, 5, 4\).*sequence = 37.*x \(2, 37",
        ),
        ({"x": np.ones((BATCH, LENGTH, HEADS), np.float32)}, r"x has shape \(2, 37, 4\).*head_dim"),
        ({"A": np.ones((HEADS, 1), np.float32)}, r"A has shape \(4, 1\).*heads = 4"),
        ({"B": np.ones((BATCH, LENGTH, 3, STATE), np.float32)}, r"C has shape .*groups = 3"),
        ({"D": np.ones((HEADS, 3), np.float32)}, r"D has shape \(4, 3\).*head_dim = 8"),
        ({"z": np.ones((BATCH, LENGTH, HEADS, 9), np.float32)}, r"z has shape"),
        ({"initial_state": np.ones((BATCH, HEADS, STATE, HEAD_DIM), np.float32)}, r"initial_state has shape"),
        ({"segment_ids": np.ones((BATCH, 3), np.int32)}, r"segment_ids has shape \(2, 3\)"),
        ({"segment_ids": np.ones((BATCH, LENGTH), np.float32)}, r"segment_ids is float32.*integer"),
        ({"dt": np.ones((BATCH, LENGTH, HEADS), np.int32)}, r"dt is int32.*floating"),
        ({"B": jnp.ones((BATCH, LENGTH, 2, STATE), jnp.bfloat16)}, r"B is bfloat16 and x is float32"),
        ({"chunk_size": 0}, r"chunk_size = 0"),
        (
            {"implementation": "cuda"},
            r"no implementation 'cuda' \(choose from auto, pallas_triton, xla, reference\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(changes, said):
    arrays, _ = inputs()
    with pytest.raises(InputError, match=f"^ssd: .*{said}"):
        ssd(**{**arrays, **changes})


def test_groups_have_to_divide_the_heads():
    arrays, _ = inputs(groups=3)
    with pytest.raises(InputError, match=r"3 groups of B \(2, 37, 3, 16\) do not divide 4 heads"):
        ssd(**arrays)


def test_a_step_refuses_what_does_not_fit():
    arrays, _ = inputs()
    now = {name: arrays[name][:, 0] for name in ("x", "dt", "B", "C")}
    with pytest.raises(InputError, match=r"^ssd_step: state has shape \(2, 4, 16, 8\)"):
        ssd_step(np.zeros((BATCH, HEADS, STATE, HEAD_DIM)), **now, A=arrays["A"])
