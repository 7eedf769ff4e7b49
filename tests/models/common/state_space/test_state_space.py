"""State-space sub-layers equal the reference's recurrences with their own weights, whole and in parts."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from state_space_cases import (
    ALL,
    BATCH,
    SEGMENTS,
    SEQUENCE,
    X,
    config_of,
    expected,
    filled,
)

from mjx.models.common.context import Context, Decoding
from mjx.models.common.parameter import abstract_parameters, bind, parameters_of
from mjx.models.common.pattern import CacheSizes
from mjx.models.common.split import in_order, in_row_order, token_order
from mjx.sharding import MeshConfig, build_mesh, default_rules, use_mesh

ONE_OF_EACH = [("ssd", "several groups"), ("selective_scan", "normed")]
"""Decoding and meshes take any option the same way."""


@pytest.mark.parametrize(("kind", "name"), ALL)
@pytest.mark.parametrize("segments", [None, SEGMENTS], ids=["one document", "packed"])
def test_the_output_is_the_references(kind, name, segments):
    layer, values = filled(config_of(kind, name))
    context = Context(segment_ids=None if segments is None else jnp.asarray(segments))
    y = jax.jit(lambda x, context: layer(x, context).y)(X, context)
    np.testing.assert_allclose(y, expected(kind, name, values, segments), atol=3e-5)


@pytest.mark.parametrize(("kind", "name"), [*ONE_OF_EACH, ("ssd", "no norm, D of each feature")])
def test_a_prompt_of_any_length_its_next_parts_and_single_tokens_are_the_whole_pass(kind, name):
    """Rows of 2 and 4 tokens behind which stands something; then three at once; then one by one."""
    config = config_of(kind, name)
    layer, values = filled(config)
    whole = expected(kind, name, values)
    lengths, rows = np.array([2, 4]), np.arange(BATCH)[:, None]
    run = jax.jit(lambda x, context, cache: layer(x, context, cache)[:2])
    cache = config.init_cache(CacheSizes(BATCH, SEQUENCE), jnp.float32)
    decoding = Decoding(jnp.zeros(BATCH, jnp.int32), jnp.asarray(lengths), prompt=True)
    y, cache = run(X[:, :5], Context(decoding=decoding), cache)
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(y[row, :length], whole[row, :length], atol=3e-5)
    for count in (3, 1, 1, 1):
        at = lengths[:, None] + np.arange(count)
        decoding = Decoding(jnp.asarray(lengths), jnp.full(BATCH, count))
        y, cache = run(X[rows, at], Context(decoding=decoding), cache)
        np.testing.assert_allclose(y, whole[rows, at], atol=3e-5)
        lengths = lengths + count


@pytest.mark.parametrize(("kind", "name"), ONE_OF_EACH)
def test_a_token_that_is_padding_leaves_its_rows_cache_as_it_is(kind, name):
    config = config_of(kind, name)
    layer, _ = filled(config)
    random = np.random.RandomState(2)
    empty = config.init_cache(CacheSizes(BATCH, SEQUENCE), jnp.float32)
    cache = jax.tree.map(lambda leaf: jnp.asarray(random.randn(*leaf.shape), leaf.dtype), empty)
    decoding = Decoding(jnp.array([3, 3]), jnp.array([0, 1]))
    run = jax.jit(lambda x, context, cache: layer(x, context, cache).cache)
    after = run(X[:, :1], Context(decoding=decoding), cache)
    for old, new in zip(jax.tree.leaves(cache), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(new[0], old[0])
        assert np.abs(new[1] - old[1]).max() > 1e-3


MESHES = {
    "tensor 4 × data 2, groups copied": MeshConfig(data=2, tensor=4),
    "context 2 × fsdp 2 × tensor 2": MeshConfig(data=1, context=2, fsdp=2, tensor=2),
    "context 2 × tensor 2, zigzag": MeshConfig(data=1, context=2, tensor=2),
}


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize(("kind", "name"), ONE_OF_EACH)
def test_every_mesh_gives_the_output_and_the_gradients_of_one_device(kind, name, mesh):
    layer, _ = filled(config_of(kind, name))
    x, segments = (np.concatenate([array[:, :8], array[:, 3:]], axis=1) for array in (X, SEGMENTS))
    weigh = np.random.RandomState(3).randn(*x.shape).astype(np.float32)

    def measure(layer: Any, x: Any, segments: Any) -> Any:
        order = token_order(x.shape[1])
        y = layer(in_order(order, x), Context(segment_ids=in_order(order, segments))).y
        y = in_row_order(order, y)
        return jnp.sum(y * weigh), y

    program = jax.value_and_grad(measure, argnums=(0, 1), has_aux=True)
    alone = jax.jit(program)(layer, x, segments)
    config = MESHES[mesh]
    sizes = {axis: getattr(config, axis) for axis in ("data", "fsdp", "context", "tensor")}
    made = build_mesh(config, jax.devices()[: int(np.prod(list(sizes.values())))])
    rules = default_rules(zigzag="zigzag" in mesh)
    with use_mesh(made, rules):
        shards = abstract_parameters(layer, made, rules)
        placed = jax.tree.map(
            lambda leaf, where: jax.device_put(leaf, where.sharding), parameters_of(layer), shards
        )
        split = jax.jit(program)(bind(layer, placed), x, segments)
    for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(split), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5 * np.abs(one).max())
