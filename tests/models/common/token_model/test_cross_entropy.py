"""The fused head and loss equal cross-entropy written with all logits, and never hold all logits."""

import contextlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.cross_entropy import language_model_loss as reference

from mjx.errors import InputError
from mjx.models.common.token_model.cross_entropy import language_model_loss
from mjx.sharding import MeshConfig, build_mesh, use_mesh

BATCH, SEQUENCE, EMBED, ROWS, VOCAB = 8, 16, 12, 64, 50  # the last 14 rows of the table are padding
RANDOM = np.random.RandomState(0)
HIDDEN = RANDOM.randn(BATCH, SEQUENCE, EMBED).astype(np.float32)
WEIGHT = RANDOM.randn(ROWS, EMBED).astype(np.float32)
LABELS = RANDOM.randint(0, VOCAB, (BATCH, SEQUENCE)).astype(np.int32)
MASK = (RANDOM.rand(BATCH, SEQUENCE) < 0.7).astype(np.float32)
MESHES = {
    "one device": None,
    "tensor 4 × data 2": {"data": 2, "tensor": 4},
    "fsdp 2 × data 4": {"data": 4, "fsdp": 2},
    "context 2 × data 4": {"data": 4, "context": 2},
    "fsdp 2 × tensor 4": {"data": 1, "fsdp": 2, "tensor": 4},
    "fsdp 2 × context 2 × tensor 2": {"data": 1, "fsdp": 2, "context": 2, "tensor": 2},
}


def with_all_logits(hidden, weight, chunks=1, **options):
    """However many chunks, the reference has one."""
    return reference(hidden, weight, LABELS, MASK, vocab_size=VOCAB, **options)


WIDE = 96  # so many features that the gradient of the table is one product over all tokens
WIDE_HIDDEN = RANDOM.randn(BATCH, SEQUENCE, WIDE).astype(np.float32)
WIDE_WEIGHT = RANDOM.randn(ROWS, WIDE).astype(np.float32)


def gradients(arrays, **options):
    """(loss, parts), (gradient of the states, gradient of the table)."""

    def halved(hidden, weight):
        loss, parts = language_model_loss(hidden, weight, LABELS, MASK, VOCAB, **options)
        return 0.5 * loss, parts

    return jax.jit(jax.value_and_grad(halved, argnums=(0, 1), has_aux=True))(*arrays)


OPTIONS = {
    "plain": {},
    "z-loss, chunks": {"z_loss": 0.01, "chunks": 4},
    "soft cap": {"soft_cap": 30.0},
    "all": {"z_loss": 0.01, "chunks": 4, "soft_cap": 2.0},
}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("one device", options) for options in OPTIONS.values()),
        *((name, OPTIONS[options]) for name in list(MESHES)[1:] for options in ("plain", "all")),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "arrays", [(HIDDEN, WEIGHT), (WIDE_HIDDEN, WIDE_WEIGHT)], ids=["accumulated", "one product"]
)
def test_value_and_gradients_equal_all_logits_to_1e_5(arrays, name, options):
    expected, *expected_gradients = with_all_logits(*arrays, **options)
    if MESHES[name] is None:
        (loss, parts), ours = gradients(arrays, **options)
    else:
        with use_mesh(build_mesh(MeshConfig(**MESHES[name]))):
            (loss, parts), ours = gradients(arrays, **options)
    np.testing.assert_allclose(loss, 0.5 * expected.total, rtol=1e-5)
    np.testing.assert_allclose(parts, (expected.cross_entropy, expected.squares), rtol=1e-5)
    for a, b in zip(ours, expected_gradients, strict=True):
        np.testing.assert_allclose(a, 0.5 * b, rtol=1e-5, atol=1e-5)
    d_hidden, d_weight = ours
    assert not np.asarray(d_hidden)[MASK == 0].any(), "a masked token has no gradient"
    assert not np.asarray(d_weight)[VOCAB:].any(), "padding has no gradient"


@pytest.mark.parametrize("name", ["one device", "fsdp 2 × context 2 × tensor 2"])
@pytest.mark.parametrize("chunks", [1, 4])
def test_a_bias_is_a_feature_that_is_one_everywhere(name, chunks):
    bias = RANDOM.randn(ROWS).astype(np.float32)
    states = np.concatenate([HIDDEN, np.ones_like(HIDDEN[..., :1])], axis=-1)
    expected, d_states, d_table = with_all_logits(states, np.concatenate([WEIGHT, bias[:, None]], axis=-1))

    def loss(hidden, weight, bias):
        return language_model_loss(hidden, weight, LABELS, MASK, VOCAB, chunks=chunks, bias=bias)[0]

    mesh = MESHES[name]
    with contextlib.nullcontext() if mesh is None else use_mesh(build_mesh(MeshConfig(**mesh))):
        value, ours = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(HIDDEN, WEIGHT, bias)
    np.testing.assert_allclose(value, expected.total, rtol=1e-5)
    for a, b in zip(ours, (d_states[..., :-1], d_table[:, :-1], d_table[:, -1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_the_value_alone_is_the_same():
    for chunks in (1, 2, 16):
        loss, _ = language_model_loss(HIDDEN, WEIGHT, LABELS, MASK, VOCAB, 0.01, chunks)
        expected, *_ = with_all_logits(HIDDEN, WEIGHT, z_loss=0.01)
        np.testing.assert_allclose(loss, expected.total, rtol=1e-5)


def test_a_capped_loss_has_the_gradient_of_its_finite_differences():
    """Logits far beyond the cap too, whose gradient is almost none."""
    with jax.enable_x64(True):
        hidden, weight = HIDDEN.astype(np.float64), 2 * WEIGHT.astype(np.float64)
        direction = np.random.RandomState(3).randn(*hidden.shape)

        def loss(step):
            return language_model_loss(
                hidden + step * direction, weight, LABELS, MASK, VOCAB, z_loss=0.01, soft_cap=3.0
            )[0]

        slope = jax.grad(loss)(0.0)
        differences = (loss(1e-3) - loss(-1e-3)) / 2e-3
    np.testing.assert_allclose(slope, differences, rtol=2e-3)


def test_padding_never_gets_probability():
    loud = WEIGHT.copy()
    loud[VOCAB:] = 1000
    quiet, _ = language_model_loss(HIDDEN, WEIGHT, LABELS, MASK, VOCAB)
    np.testing.assert_array_equal(language_model_loss(HIDDEN, loud, LABELS, MASK, VOCAB)[0], quiet)


def test_large_logits_do_not_overflow():
    loss, _ = language_model_loss(100 * HIDDEN, 100 * WEIGHT, LABELS, MASK, VOCAB)
    expected, *_ = with_all_logits(100 * HIDDEN, 100 * WEIGHT)
    np.testing.assert_allclose(loss, expected.total, rtol=1e-5)


def test_bfloat16_states_are_reduced_in_float32():
    hidden, weight = HIDDEN.astype(jnp.bfloat16), WEIGHT.astype(jnp.bfloat16).astype(np.float32)
    loss, _ = language_model_loss(hidden, weight, LABELS, MASK, VOCAB)
    expected, *_ = with_all_logits(hidden.astype(np.float32), weight)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, expected.total, rtol=1e-5)


def test_chunks_have_to_divide_a_devices_tokens():
    with pytest.raises(InputError, match=r"loss_chunks = 3 does not divide the 16 tokens of a row"):
        language_model_loss(HIDDEN, WEIGHT, LABELS, MASK, VOCAB, 0.0, 3)
    with (
        use_mesh(build_mesh(MeshConfig(data=4, context=2))),
        pytest.raises(InputError, match=r"loss_chunks = 16 does not divide the 8 tokens"),
    ):
        language_model_loss(HIDDEN, WEIGHT, LABELS, MASK, VOCAB, 0.0, 16)


BIG = {"batch": 4, "sequence": 64, "embed": 16, "vocab": 1024}
TOKENS = BIG["batch"] * BIG["sequence"]


def big_gradient(chunks: int):
    def loss(hidden, weight, labels, mask):
        return language_model_loss(hidden, weight, labels, mask, BIG["vocab"], 1e-3, chunks)[0]

    return jax.value_and_grad(loss, argnums=(0, 1))


def big_arrays(mesh=None):
    def array(dtype, *axes, spec=()):
        sharding = jax.NamedSharding(mesh, jax.P(*spec)) if mesh else None
        return jax.ShapeDtypeStruct(tuple(BIG[axis] for axis in axes), dtype, sharding=sharding)

    return (
        array(jnp.float32, "batch", "sequence", "embed"),
        array(jnp.float32, "vocab", "embed", spec=("tensor",)),
        array(jnp.int32, "batch", "sequence"),
        array(jnp.float32, "batch", "sequence"),
    )


def sizes_in_jaxpr(jaxpr):
    for equation in jaxpr.eqns:
        yield from (out.aval.size for out in equation.outvars if hasattr(out.aval, "size"))
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from sizes_in_jaxpr(inner)


def sizes_in_hlo(text: str) -> list[int]:
    shapes = re.findall(r"\b(?:pred|[a-z]+\d+)\[([\d,]+)\]", text)
    return [int(np.prod([int(n) for n in shape.split(",")])) for shape in shapes]


def test_with_chunks_no_array_of_all_tokens_and_the_vocabulary_exists():
    for chunks in (1, 8):
        wanted = TOKENS * BIG["vocab"] // chunks
        traced = jax.make_jaxpr(big_gradient(chunks))(*big_arrays())
        assert max(sizes_in_jaxpr(traced.jaxpr)) == wanted
        compiled = jax.jit(big_gradient(chunks)).lower(*big_arrays()).compile()
        assert max(sizes_in_hlo(compiled.as_text())) == wanted
        assert compiled.memory_analysis().temp_size_in_bytes < 4 * 4 * wanted


def test_over_tensor_each_device_holds_its_share_of_the_vocabulary_and_no_logits_are_gathered():
    mesh = build_mesh(MeshConfig(data=1, tensor=8))
    with use_mesh(mesh):
        text = jax.jit(big_gradient(1)).lower(*big_arrays(mesh)).compile().as_text()
    assert max(sizes_in_hlo(text)) == TOKENS * BIG["vocab"] // 8
    assert "all-gather" not in text
    moved = [
        max(sizes_in_hlo(line.partition(" all-reduce")[0]), default=1)
        for line in text.splitlines()
        if " all-reduce" in line
    ]
    assert moved
    assert max(moved) <= TOKENS * BIG["embed"], (
        "the gradient of the states is the largest thing that is summed"
    )
