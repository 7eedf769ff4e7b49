"""Pairs told one by one in a ring of devices: against the formula, on one device and on eight."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx.models.dual_encoder.sigmoid_loss import ring_exchange, sigmoid_loss
from mjx.plan.program.collectives import collectives
from mjx.plan.program.hlo import parse_program
from mjx.sharding import MeshConfig, build_mesh, use_mesh

RANDOM = np.random.RandomState(0)
PICTURES, TEXTS = RANDOM.randn(2, 16, 6).astype(np.float32)
PICTURES, TEXTS = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (PICTURES, TEXTS + PICTURES))
COUNTED = np.array([1] * 13 + [0] * 3, np.float32)
SCALE, BIAS = np.float32(8.0), np.float32(-2.0)
GIVEN = (PICTURES, TEXTS, COUNTED, SCALE, BIAS)
MESHES = {
    "data 8": MeshConfig(data=8),
    "data 2 × fsdp 2 × tensor 2": MeshConfig(data=2, fsdp=2, tensor=2),
    "fsdp 2 × expert 2 × context 2": MeshConfig(data=1, fsdp=2, expert=2, context=2),
    "tensor 8": MeshConfig(data=1, tensor=8),
}


def formula(pictures, texts, counted, scale, bias):
    """Zhai et al. 2023, algorithm 1, of the rows that count."""
    some = np.flatnonzero(counted)
    logits = scale * pictures[some] @ texts[some].T + bias
    signs = 2 * jnp.eye(len(some)) - 1
    return -jnp.sum(jax.nn.log_sigmoid(signs * logits))


def ring(pictures, texts, counted, scale, bias):
    sums = sigmoid_loss(pictures, texts, counted, scale, bias)
    return sums.loss, sums.nearest


with_gradients = functools.partial(jax.value_and_grad, argnums=(0, 1, 3, 4))
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


def test_loss_and_gradients_are_those_of_the_formula():
    (loss, _), found = with_gradients(ring, has_aux=True)(*GIVEN)
    expected, gradients = with_gradients(formula)(*GIVEN)
    close(loss, expected)
    for ours, theirs in zip(found, gradients, strict=True):
        close(ours, theirs)


@pytest.mark.parametrize("name", MESHES)
def test_eight_devices_are_one(name):
    program = jax.jit(with_gradients(ring, has_aux=True))
    (loss, nearest), found = program(*GIVEN)
    with use_mesh(build_mesh(MESHES[name])):
        (on_mesh, theirs), others = jax.jit(with_gradients(ring, has_aux=True))(*GIVEN)
        evaluated, _ = jax.jit(ring)(*GIVEN)
    close(on_mesh, loss)
    close(evaluated, loss)
    assert theirs == nearest
    jax.tree.map(close, others, found)


def test_a_picture_is_nearest_to_its_own_text_where_no_text_that_counts_is_nearer():
    nearest = np.argmax((PICTURES @ TEXTS.T)[:13, :13], axis=1) == np.arange(13)
    assert 0 < nearest.sum() < 13
    assert sigmoid_loss(*GIVEN).nearest == nearest.sum()


def test_devices_send_blocks_around_and_gather_nothing():
    mesh = build_mesh(MESHES["data 2 × fsdp 2 × tensor 2"])
    with use_mesh(mesh):
        rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(("data", "fsdp")))
        whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        laid_out = (rows, rows, rows, whole, whole)
        lowered = jax.jit(
            with_gradients(ring, has_aux=True),
            in_shardings=laid_out,
            out_shardings=(whole, (rows, rows, whole, whole)),
        ).lower(*GIVEN)
    text = lowered.compile().as_text()
    assert not re.findall(r"all-gather|all-to-all", text)
    assert not re.findall(r"f32\[16,", text)  # neither all features nor a row of all logits
    found = collectives(parse_program(text), dict(mesh.shape), devices_per_node=8)
    sent = [one for one in found if one.origin.exchange == "features"]
    exchange = ring_exchange(4, 6, 4, ("data", "fsdp"))
    assert {one.kind for one in sent} == {"collective-permute"}
    assert all(one.exact for one in sent)
    assert sum(one.wire_bytes for one in sent) == exchange.forward
    assert {one.axes for one in sent} == {exchange.axes}
