"""The Triton kernels of the selective scan: in Triton's interpreter, lowered, and compiled for GPUs."""

import functools
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx.errors import InputError
from mjx.kernels.selective_scan import selective_scan, shipped, triton
from mjx.kernels.triton_launch import launch_on_gpu

DRIVER = Path(__file__).with_name("triton_interpreter.py")
BATCH = 2
HALF = ("u", "B", "C", "z")
"""What has the type of u."""


def arrays_of(
    length=37,
    channels=10,
    state=4,
    *,
    batch=BATCH,
    D=False,
    z=False,
    initial_state=False,
    softplus=False,
):
    random = np.random.RandomState(0)
    arrays = {
        "u": random.randn(batch, length, channels),
        "delta": np.abs(random.randn(batch, length, channels)),
        "A": -np.exp(random.randn(channels, state)),
        "B": random.randn(batch, length, state),
        "C": random.randn(batch, length, state),
    }
    if D:
        arrays["D"] = random.randn(channels)
    if z:
        arrays["z"] = random.randn(batch, length, channels)
    if softplus:
        arrays["delta_bias"] = random.randn(channels)
    if initial_state:
        arrays["initial_state"] = random.randn(batch, channels, state)
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def segments(length=37):
    """Documents that begin at a chunk's first and last token and inside, padding before and behind."""
    ids = np.ones((BATCH, length), np.int32)
    ids[0, :2], ids[0, 15:16], ids[0, 16:20], ids[0, 20:30], ids[0, 30:] = 0, 2, 3, 4, 0
    ids[1, 16:32], ids[1, 32:] = 2, 1
    return ids


def case(arrays, **options):
    random = np.random.RandomState(1)
    (batch, _, channels), state = arrays["u"].shape, arrays["A"].shape[1]
    weights = {"y": random.randn(*arrays["u"].shape), "state": random.randn(batch, channels, state)}
    return {
        "arrays": arrays,
        "options": options,
        "weights": {name: weight.astype(np.float32) for name, weight in weights.items()},
    }


ALL = {"D": True, "z": True, "initial_state": True, "softplus": True}
EVERYTHING = {"segment_ids": segments(), "delta_softplus": True}


def poisoned(arrays):
    padding = segments() == 0
    return {
        name: np.where(padding[..., None], np.nan, array).astype(np.float32)
        if name in (*HALF, "delta")
        else array
        for name, array in arrays.items()
    }


def rounded(arrays, dtype):
    return {name: array.astype(dtype) if name in HALF else array for name, array in arrays.items()}


CASES = {
    "plain": case(arrays_of()),
    "D and gate": case(arrays_of(D=True, z=True)),
    "states": case(arrays_of(initial_state=True)),
    "one token": case(arrays_of(length=1, initial_state=True)),
    "whole blocks": case(arrays_of(length=32, channels=16, z=True)),
    "segments": case(arrays_of(), segment_ids=segments()),
    "everything": case(arrays_of(**ALL), **EVERYTHING),
    "everything, NaN in padding": case(poisoned(arrays_of(**ALL)), **EVERYTHING),
    # One block of channels: the interpreter takes one program after the other, and one state.
    **{
        f"state {size}": case(arrays_of(length=19, channels=3, state=size, batch=1, D=True))
        for size in (1, 16, 24, 64)
    },
    **{
        dtype: case(rounded(arrays_of(D=True, z=True, initial_state=True), jnp.dtype(dtype)))
        for dtype in ("bfloat16", "float16")
    },
}
EXACT = [name for name in CASES if name not in ("bfloat16", "float16", "everything, NaN in padding")]


@pytest.fixture(scope="module")
def interpreted(in_triton_s_interpreter):
    """What the kernels made of the cases."""
    return in_triton_s_interpreter(DRIVER, CASES)


def evaluate(arrays, options, weights, implementation="reference"):
    def total(arrays):
        y, state = selective_scan(**arrays, **options, return_final_state=True, implementation=implementation)
        loss = jnp.sum(y.astype(jnp.float32) * weights["y"]) + jnp.sum(state * weights["state"])
        return loss, {"y": y, "state": state}

    gradients, out = jax.jit(jax.grad(total, has_aux=True))(arrays)
    return {**out, **{f"gradient of {name}": gradient for name, gradient in gradients.items()}}


@pytest.mark.parametrize("name", EXACT)
def test_the_kernels_equal_the_recurrence_with_every_gradient(interpreted, name):
    ours, theirs = interpreted[name]["results"], evaluate(**CASES[name])
    assert ours.keys() == theirs.keys()
    for part, expected in theirs.items():
        expected = np.asarray(expected, np.float64)
        assert np.isfinite(expected).all(), part
        atol = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(ours[part], expected, rtol=0, atol=atol, err_msg=part)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_errs_at_most_twice_as_much_as_xla(interpreted, dtype):
    given = CASES[dtype]
    wide = {name: np.asarray(array, np.float32) for name, array in given["arrays"].items()}
    best = evaluate(**{**given, "arrays": wide})
    theirs, ours = evaluate(**given, implementation="xla"), interpreted[dtype]["results"]
    for name, expected in best.items():
        assert ours[name].dtype == theirs[name].dtype, name

        def error(result, exact=expected):
            return np.sqrt(np.mean(np.square(np.asarray(result, np.float32) - exact)))

        atol = 1e-6 * np.abs(expected).max()
        assert error(ours[name]) <= 2 * error(theirs[name]) + atol, name


def test_what_stands_in_padding_reaches_neither_results_nor_gradients(interpreted):
    clean = interpreted["everything"]["results"]
    for name, result in interpreted["everything, NaN in padding"]["results"].items():
        np.testing.assert_array_equal(result, clean[name], err_msg=name)


@pytest.mark.parametrize("name", CASES)
def test_every_element_of_the_kernels_outputs_is_written_once(interpreted, name):
    """By all programs together: there is nothing that two could race for."""
    assert interpreted[name]["written"] == {1}


def test_it_is_refused_on_a_cpu_and_for_more_states_than_it_has_seen():
    with pytest.raises(InputError, match=r"'triton' cannot do platform cpu \(runs on gpu\)"):
        selective_scan(**arrays_of(), implementation="triton")
    with pytest.raises(InputError, match=r"state = 300 \(at most 256\)"):
        selective_scan(**arrays_of(length=2, state=300), implementation="triton")


def test_a_configuration_is_there_for_every_gpu_and_state():
    for gpu, of_gpu in ((None, 9.0), (7.0, 8.0), (8.6, 8.0), (9.0, 9.0), (12.0, 9.0)):
        for state, up_to in ((1, 64), (64, 64), (65, 256), (256, 256)):
            assert triton.config_for(state, gpu) is triton.CONFIGS[of_gpu, up_to]


@pytest.mark.parametrize("compute_capability", [80, 90])
def test_forward_and_backward_lower_for_gpus(compute_capability, monkeypatch):
    pytest.importorskip("triton")
    pytest.importorskip("jax_triton")
    pytest.importorskip("jax_cuda13_plugin")
    run = shipped.program(launcher=functools.partial(launch_on_gpu, compute_capability=compute_capability))
    embedded, compress = [], zlib.compress
    monkeypatch.setattr(zlib, "compress", lambda call: embedded.append(call) or compress(call))
    shapes = shipped.arguments("bfloat16", 16)
    text = jax.jit(run).trace(*shapes).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("custom_call @triton_kernel_call") == 2
    for call in embedded:
        assert b".version 8.7" in call, "the PTX that drivers of CUDA 12.8 and later read"
        assert f".target sm_{compute_capability}".encode() in call
    assert len(embedded) == 2


@pytest.mark.gpu_compile
@pytest.mark.parametrize("compute_capability", [8.0, 9.0])
def test_states_are_not_read_through_the_cache_for_what_never_changes(compute_capability):
    """They are stored by one thread, and loaded by another behind a barrier."""
    pytest.importorskip("triton")
    pytest.importorskip("jax_triton")
    for source in shipped.sources(shipped.CONFIGURATIONS[0], compute_capability):
        ptx = source.assemble().ptx
        assert "ld.global" in ptx
        assert "ld.global.nc" not in ptx
