import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mjx.models.common.token_model.embedding import Embedding, padded_vocabulary
from mjx.sharding import MeshConfig, build_mesh, default_rules, use_mesh

ROWS, EMBED = 64, 16
IDS = jnp.asarray(np.random.RandomState(0).randint(0, ROWS, (4, 8)), jnp.int32)
COTANGENT = np.random.RandomState(1).randn(4, 8, EMBED).astype(np.float32)
MESHES = [
    {"data": 1, "tensor": 8},
    {"data": 2, "tensor": 4},
    {"data": 1, "fsdp": 2, "context": 2, "tensor": 2},
    {"data": 2, "fsdp": 2, "tensor": 2},
]


def table(axis: str = "vocab") -> Embedding:
    return Embedding(ROWS, EMBED, axis=axis, std=1.0, rngs=nnx.Rngs(params=jax.random.key(0)))


def rows_and_gradient(embedding: Embedding, ids):
    graph, state = nnx.split(embedding)
    rows, pull_back = jax.vjp(lambda state: nnx.merge(graph, state)(ids, jnp.float32), state)
    (gradient,) = pull_back(jnp.asarray(COTANGENT))
    return rows, gradient["weight"].get_value()


@pytest.mark.parametrize("sequence_parallel", [True, False], ids=["sequence parallel", "not"])
@pytest.mark.parametrize("sizes", MESHES, ids=lambda sizes: "-".join(sizes))
@pytest.mark.parametrize("axis", ["vocab", "positions"])
def test_looks_rows_up_and_adds_their_gradients_together(axis, sizes, sequence_parallel):
    embedding = table(axis)
    weight = np.asarray(embedding.weight[...])
    scattered = np.zeros((ROWS, EMBED), np.float64)
    np.add.at(scattered, np.asarray(IDS), COTANGENT)
    with use_mesh(build_mesh(MeshConfig(**sizes)), default_rules(sequence_parallel=sequence_parallel)):
        rows, gradient = jax.jit(rows_and_gradient)(embedding, IDS)
    np.testing.assert_array_equal(rows, weight[np.asarray(IDS)])
    np.testing.assert_allclose(gradient, scattered, atol=1e-5)


def test_one_device_looks_up_the_same():
    embedding = table()
    rows, gradient = rows_and_gradient(embedding, IDS)
    np.testing.assert_array_equal(rows, np.asarray(embedding.weight[...])[np.asarray(IDS)])
    assert float(jnp.sum(gradient)) == pytest.approx(float(COTANGENT.sum()), abs=1e-4)


@pytest.mark.parametrize("sequence_parallel", [True, False], ids=["sequence parallel", "not"])
def test_the_table_is_never_gathered(sequence_parallel):
    mesh = build_mesh(MeshConfig(data=1, tensor=8))
    with use_mesh(mesh, default_rules(sequence_parallel=sequence_parallel)):
        embedding = table()
        place = jax.NamedSharding(mesh, jax.P("tensor"))
        embedding.weight.set_value(jax.device_put(embedding.weight[...], place))
        text = jax.jit(lambda e, ids: e(ids, jnp.float32)).lower(embedding, IDS).compile().as_text()
    assert "all-gather" not in text
    assert f"f32[{ROWS},{EMBED}]" not in text
    assert f"f32[{ROWS // 8},{EMBED}]" in text


@pytest.mark.parametrize(("tokens", "sequence_parallel"), [(12, True), (24, True), (3, False), (6, False)])
def test_where_features_are_split_the_smaller_of_table_and_rows_is_sent(tokens, sequence_parallel):
    """A device has a quarter of the table (16 rows), and 4 rows of tokens, or a quarter of their states."""
    ids = jnp.zeros((8, tokens), jnp.int32)
    mesh = build_mesh(MeshConfig(data=1, fsdp=2, tensor=4))
    with use_mesh(mesh, default_rules(sequence_parallel=sequence_parallel)):
        program = str(jax.make_jaxpr(lambda e, ids: e(ids, jnp.float32))(table(), ids))
    few = tokens * (1 if sequence_parallel else 4) < 16
    assert ("all_to_all" in program) == few


@pytest.mark.parametrize(
    ("size", "divisor", "rows"), [(50257, 128, 50304), (256, 128, 256), (1, 8, 8), (5, 1, 5)]
)
def test_the_table_is_padded_to_a_multiple(size, divisor, rows):
    assert padded_vocabulary(size, divisor) == rows
