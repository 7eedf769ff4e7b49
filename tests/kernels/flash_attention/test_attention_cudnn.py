"""cuDNN's attention is asked for the right thing, as far as a machine without a GPU can tell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import inputs

from mjx.errors import InputError
from mjx.kernels import call
from mjx.kernels.flash_attention import flash_attention


@pytest.fixture
def on_a_hopper_gpu(monkeypatch):
    monkeypatch.setattr(call, "current_device", lambda: ("gpu", 9.0))


@pytest.fixture
def on_an_ampere_gpu(monkeypatch):
    monkeypatch.setattr(call, "current_device", lambda: ("gpu", 8.0))


@pytest.mark.parametrize("options", [{}, {"causal": False}, {"window": 5}, {"scale": 0.3, "keys": 30}])
def test_what_jax_is_asked_for_means_what_the_reference_means(options, on_a_hopper_gpu, monkeypatch):
    """JAX's own float32 implementation stands in for cuDNN; both document the same arguments."""
    asked, attention = [], jax.nn.dot_product_attention

    def stand_in(*arrays, implementation, **arguments):
        asked.append(implementation)
        exact = (x.astype(jnp.float32) for x in arrays)
        return attention(*exact, implementation="xla", **arguments)

    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    options = dict(options)
    arrays = [jnp.asarray(x, jnp.bfloat16) for x in inputs(queries=18, keys=options.pop("keys", None))[:3]]
    out = flash_attention(*arrays, **options)  # auto
    assert asked == ["cudnn"]
    exact = [x.astype(jnp.float32) for x in arrays]
    expected = flash_attention(*exact, implementation="reference", **options)
    np.testing.assert_allclose(out, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "feature"),
    [
        ({"soft_cap": 3.0}, "soft-cap"),
        ({"segment_ids": np.ones((2, 18), int)}, "segments"),
        ({"sinks": np.zeros(4, np.float32)}, "sinks"),
        ({"query_offset": 3}, "offsets"),
        ({"query_offset": np.array([3, 4])}, "offset per row"),
        ({"return_log_sum_exp": True}, "log-sum-exp"),
        ({"dropout_rate": 0.1, "dropout_key": jax.random.key(0)}, "dropout"),
        ({"causal": False, "window": 4}, "two-sided window"),
    ],
)
def test_features_it_lacks_are_refused_by_name_and_auto_takes_xla(options, feature, on_a_hopper_gpu):
    arrays = [jnp.asarray(x, jnp.bfloat16) for x in inputs(queries=18)[:3]]
    with pytest.raises(InputError, match=f"'cudnn' cannot do {feature}; .*xla and reference can"):
        flash_attention(*arrays, implementation="cudnn", **options)
    ours = jax.tree.leaves(flash_attention(*arrays, **options))
    theirs = jax.tree.leaves(flash_attention(*arrays, implementation="xla", **options))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_odd_lengths_are_refused_and_auto_takes_xla(on_a_hopper_gpu):
    """JAX has them without a gradient alone."""
    arrays = [jnp.asarray(x, jnp.bfloat16) for x in inputs(queries=18, keys=17)[:3]]
    with pytest.raises(InputError, match=r"keys = 17 \(needs a multiple of 2\)"):
        flash_attention(*arrays, implementation="cudnn", causal=False)
    ours, theirs = (flash_attention(*arrays, implementation=name, causal=False) for name in ("auto", "xla"))
    np.testing.assert_array_equal(ours, theirs)


def test_float32_and_odd_head_sizes_are_refused(on_a_hopper_gpu):
    with pytest.raises(InputError, match=r"cannot do dtype float32 \(takes bfloat16, float16\); .*xla"):
        flash_attention(*inputs(queries=18)[:3], implementation="cudnn")
    for size, why in ((12, "needs a multiple of 8"), (264, "at most 256")):
        arrays = [jnp.asarray(x, jnp.bfloat16) for x in inputs(4, 4, size, size, queries=4)[:3]]
        with pytest.raises(InputError, match=rf"head_dim = {size} \({why}\)"):
            flash_attention(*arrays, implementation="cudnn")


def test_wide_heads_need_a_hopper_gpu(on_an_ampere_gpu):
    arrays = [jnp.asarray(x, jnp.bfloat16) for x in inputs(2, 2, 256, 256, queries=4)[:3]]
    with pytest.raises(InputError, match=r"head_dim = 256 \(at most 128 below compute capability 9\.0\)"):
        flash_attention(*arrays, implementation="cudnn")


def test_it_lowers_for_cuda_forward_and_backward(on_a_hopper_gpu, monkeypatch):
    """To the custom calls of cuDNN; a stand-in gives the version of the library that is not here."""
    fused = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")

    class Versions:
        cudnn_get_version = staticmethod(lambda: 91_000)

    monkeypatch.setattr(fused, "cuda_versions", Versions)
    q = jax.ShapeDtypeStruct((2, 64, 4, 64), jnp.bfloat16)
    k = jax.ShapeDtypeStruct((2, 64, 2, 64), jnp.bfloat16)

    def loss(q, k, v):
        return jnp.sum(flash_attention(q, k, v, window=16, implementation="cudnn").astype(jnp.float32))

    traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(q, k, k)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "__cudnn$fmhaSoftmax(" in text
    assert "__cudnn$fmhaSoftmaxBackward(" in text
    assert "sliding_window_length" in text
