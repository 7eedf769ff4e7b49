"""The Pallas-Triton kernels of SSD: interpreted on the CPU against the recurrence, and lowered for a GPU."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from reference import recurrences

from mjx.errors import InputError
from mjx.gpus.target import lowering_for
from mjx.kernels.documents import document_starts, keep_real
from mjx.kernels.ssd import pallas_triton, reference, ssd, xla
from mjx.kernels.ssd.configurations import AMPERE, HOPPER, TABLE, Chunks, KernelConfig, States, default_config

BATCH, LENGTH = 2, 37
SEGMENTS = np.array([[0] * 2 + [1] * 9 + [2] * 1 + [7] * 17 + [0] * 8, [3] * 16 + [1] * 16 + [3] * 5])
# Parts of a state and heads of a program that are fewer than there are.
SMALL = KernelConfig(16, States(16, 16, 4, 1), Chunks(2, 16, 4, 1), Chunks(4, 32, 4, 1), Chunks(2, 16, 4, 1))
EVERYTHING = {"D": 1, "z": True, "initial": True, "segments": SEGMENTS}
CASES = {
    "nothing": {},
    "D of each channel": {"D": 8},
    "initial state": {"initial": True},
    "everything": EVERYTHING,
    "one group": {**EVERYTHING, "groups": 1},
    "a group for each head": {**EVERYTHING, "groups": 4},
    "six heads in two groups": {**EVERYTHING, "heads": 6},
    "one token": {"length": 1, "D": 1, "z": True, "initial": True},
    "less than a chunk": {"length": 11, "initial": True},
    "whole chunks": {"length": 48, "D": 1, "z": True},
    "48 features, state 64": {"D": 1, "head_dim": 48, "state": 64, "heads": 2},
    "64 features, state 128": {"segments": SEGMENTS, "head_dim": 64, "state": 128, "heads": 2, "groups": 1},
    "128 features, state 24": {"head_dim": 128, "state": 24, "heads": 2},
}


def inputs(
    *, heads=4, groups=2, length=LENGTH, head_dim=8, state=32, D=None, z=False, initial=False, segments=None
):
    """Arrays as an implementation takes them, and where documents start."""
    random = np.random.RandomState(0)
    of = lambda *shape: random.randn(*shape).astype(np.float32)  # noqa: E731
    arrays = {
        "x": of(BATCH, length, heads, head_dim),
        "dt": np.abs(of(BATCH, length, heads)),
        "A": -np.exp(of(heads)),
        "B": of(BATCH, length, groups, state),
        "C": of(BATCH, length, groups, state),
        "D": None if D is None else of(heads, D),
        "z": of(BATCH, length, heads, head_dim) if z else None,
        "initial_state": of(BATCH, heads, head_dim, state) * initial,
    }
    if segments is None:
        return arrays, None
    real, starts = document_starts(jnp.asarray(segments))
    for name in ("x", "dt", "B", "C", "z"):
        if arrays[name] is not None:
            arrays[name] = keep_real(real, arrays[name])
    return arrays, starts


kernels = functools.partial(pallas_triton.ssd, config=SMALL, interpret=True)


def gradients(function, arrays, starts):
    """Output, final state, and gradients of a weighted sum of both."""

    def loss(arrays):
        y, state = function(**arrays, starts=starts, chunk_size=16)
        weights = np.random.RandomState(1)
        total = jnp.sum(y.astype(jnp.float32) * weights.randn(*y.shape)) + jnp.sum(
            state * weights.randn(*state.shape)
        )
        return total, {"y": y, "state": state}

    found, out = jax.grad(loss, has_aux=True)(arrays)
    return {**out, **{f"d_{name}": array for name, array in found.items() if array is not None}}


results = jax.jit(gradients, static_argnums=0)
"""Compiled once for all inputs of the same shapes."""


def assert_close(ours, theirs, relative=1e-5):
    """Relative to the largest magnitude of each array."""
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        expected = np.asarray(expected, np.float64)
        assert np.isfinite(expected).all(), name
        np.testing.assert_allclose(
            ours[name], expected, rtol=0, atol=relative * np.abs(expected).max(), err_msg=name
        )


@pytest.mark.parametrize("case", CASES)
def test_the_kernels_give_the_recurrence_s_results_and_gradients(case):
    arrays, starts = inputs(**CASES[case])
    assert_close(results(kernels, arrays, starts), results(reference.ssd, arrays, starts))


def test_decays_that_vanish_within_a_chunk_make_neither_nan_nor_noise():
    arrays, starts = inputs()
    arrays["dt"] = arrays["dt"] * 30
    assert_close(results(kernels, arrays, starts), results(reference.ssd, arrays, starts), 2e-5)


def test_a_chunk_whose_decays_reach_beyond_float32_makes_no_nan():
    arrays, starts = inputs(**EVERYTHING)
    arrays["dt"] = arrays["dt"] * 1000
    # Of decays by exp(-10⁴) float32's cumulative sum keeps this much.
    assert_close(results(kernels, arrays, starts), results(reference.ssd, arrays, starts), 2e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_as_near_to_float32_as_the_xla_path(dtype):
    arrays, starts = inputs(**{**EVERYTHING, "length": 80, "segments": None}, head_dim=32)
    arrays = {
        name: jnp.asarray(x, dtype if name in ("x", "B", "C", "z") else jnp.float32)
        for name, x in arrays.items()
    }
    wide = {name: x.astype(jnp.float32) for name, x in arrays.items()}
    truth = results(reference.ssd, wide, starts)
    ours, theirs = results(kernels, arrays, starts), results(xla.ssd, arrays, starts)
    assert ours["y"].dtype == ours["d_B"].dtype == dtype
    assert ours["state"].dtype == ours["d_dt"].dtype == jnp.float32
    for name, exact in truth.items():
        error, allowed = (jnp.sqrt(jnp.mean((found[name] - exact) ** 2)) for found in (ours, theirs))
        assert error <= 2 * allowed, name


@pytest.fixture
def public(monkeypatch):
    """`ssd` as on a GPU, but interpreted."""
    monkeypatch.setattr(pallas_triton, "ssd", kernels)
    monkeypatch.setattr("mjx.kernels.call.current_device", lambda: ("gpu", 9.0))
    return functools.partial(ssd, implementation="pallas_triton", return_final_state=True)


def test_what_stands_in_padding_reaches_neither_results_nor_gradients(public):
    arrays, _ = inputs(**{**EVERYTHING, "D": 8, "segments": None})
    scan = functools.partial(public, segment_ids=SEGMENTS)
    call = lambda starts, chunk_size, **arrays: scan(**arrays)  # noqa: E731
    clean = results(call, arrays, None)
    poisoned = dict(arrays)
    for name in ("x", "dt", "B", "C", "z"):
        poisoned[name] = arrays[name].copy()
        poisoned[name][SEGMENTS == 0] = np.nan
    for name, result in results(call, poisoned, None).items():
        np.testing.assert_array_equal(result, clean[name], err_msg=name)


def test_packed_documents_equal_separate_ones(public):
    """Each by itself, token by token in NumPy."""
    arrays, _ = inputs(D=1, z=True, initial=True)
    arrays["D"] = arrays["D"][:, 0]
    packed, final = jax.jit(public)(**arrays, segment_ids=SEGMENTS)
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
            y, state = recurrences.ssd(**alone)
            np.testing.assert_allclose(packed[row, begin:end], y[0], atol=2e-5)
        np.testing.assert_allclose(final[row], state[0], atol=2e-5)


def test_states_larger_than_any_configuration_are_refused(public):
    arrays, _ = inputs(state=264)
    with pytest.raises(InputError, match=r"ssd: .*'pallas_triton' cannot do state = 264 \(at most 256\)"):
        public(**arrays)


@pytest.mark.parametrize(("architecture", "wide"), TABLE)
def test_every_size_that_is_promised_has_a_configuration(architecture, wide):
    for head_dim, state in itertools.product((1, 48, 64, 65, 128), (1, 64, 128, 129, 256)):
        config = default_config(head_dim, state, jnp.float32 if wide else jnp.float16, architecture)
        rows = [row[2] for row in TABLE[architecture, wide]]
        assert config in rows


def test_the_architecture_chooses_and_an_unknown_one_is_the_oldest():
    of = functools.partial(default_config, 64, 128, jnp.bfloat16)
    assert of(None) == of(8.9) == of(AMPERE) != of(HOPPER) == of(10.0)


@pytest.mark.parametrize(("head_dim", "state"), [(48, 24), (128, 256)])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("architecture", [AMPERE, HOPPER])
def test_all_kernels_lower_for_a_gpu(triton_programs, dtype, head_dim, state, architecture):
    arrays, starts = inputs(**EVERYTHING, heads=6, head_dim=head_dim, state=state)
    shapes = {
        name: jax.ShapeDtypeStruct(array.shape, dtype if name in ("x", "B", "C", "z") else jnp.float32)
        for name, array in arrays.items()
    }
    config = default_config(head_dim, state, dtype, architecture)

    def loss(arrays):
        y, last = pallas_triton.ssd(**arrays, starts=starts, chunk_size=64, config=config)
        return jnp.sum(y.astype(jnp.float32)) + jnp.sum(last)

    with lowering_for("h100"):
        traced = jax.jit(jax.value_and_grad(loss)).trace(shapes)
        programs = triton_programs(traced.lower(lowering_platforms=("cuda",)))
    # The outputs a second time, before the gate.
    assert len(programs) == 6
    for text in programs:
        assert "tt.dot" in text
        # An error of 1e-3 where float32 is promised; of bfloat16 the word means nothing.
        assert not re.search(r"tf32 : tensor<\w+xf32>", text)


@pytest.fixture(scope="module")
def calls():
    """Kernel → its grid, and the blocks and shapes of its outputs."""
    found = {}

    def note(kernel, *, grid, out_specs, out_shape, name, **options):
        found[name] = (grid, out_specs, out_shape)
        return pallas_call(kernel, grid=grid, out_specs=out_specs, out_shape=out_shape, name=name, **options)

    pallas_call = pl.pallas_call
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pl, "pallas_call", note)
        arrays, starts = inputs(**EVERYTHING, heads=6)
        jax.eval_shape(functools.partial(gradients, kernels, starts=starts), arrays)
    return found


@pytest.mark.parametrize("kind", ["states", "outputs", "d_states", "inputs", "shared"])
def test_no_two_programs_write_one_block(calls, kind):
    """What interpret mode, which runs one after the other, cannot see."""
    grid, specs, shapes = calls[f"ssd_{kind}"]
    for spec, shape in zip(specs, shapes, strict=True):
        written = [spec.index_map(*place) for place in itertools.product(*map(range, grid))]
        assert len(set(written)) == len(written)
        sizes = [1 if size is None else size for size in spec.block_shape]
        assert len(written) * np.prod(sizes) == np.prod(shape.shape), "every element is written"
