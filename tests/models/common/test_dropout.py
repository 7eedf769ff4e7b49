import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx.errors import InputError
from mjx.models.common.dropout import check_rate, dropout
from mjx.sharding import MeshConfig, build_mesh, default_rules, shard, use_mesh

KEY = jax.random.key(3)
MESHES = [{"data": 8}, {"data": 2, "tensor": 4}, {"data": 1, "fsdp": 2, "context": 4}]


def residual(key, x):
    return dropout(shard(x, "batch", "residual_sequence", "embed"), 0.3, key)


@pytest.mark.parametrize("sizes", MESHES, ids=lambda sizes: "-".join(sizes))
@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_the_mask_is_the_same_on_any_mesh(sizes, sequence_parallel):
    x = jnp.ones((8, 16, 32))
    expected = residual(KEY, x)
    rules = default_rules(sequence_parallel=sequence_parallel)
    with use_mesh(build_mesh(MeshConfig(**sizes)), rules):
        got = jax.jit(lambda x: residual(KEY, x))(x)
    assert len(got.sharding.device_set) == 8
    np.testing.assert_array_equal(got, expected)


def test_a_share_is_dropped_and_the_mean_is_kept():
    y = np.asarray(dropout(jnp.ones((200, 500)), 0.3, KEY))
    assert (y == 0).mean() == pytest.approx(0.3, abs=0.01)
    assert y.mean() == pytest.approx(1, abs=0.01)
    assert set(np.unique(y)) == {np.float32(0), np.float32(1) / np.float32(0.7)}


def test_other_keys_drop_others():
    x = jnp.ones((64, 64))
    assert (dropout(x, 0.5, KEY) != dropout(x, 0.5, jax.random.key(4))).mean() > 0.4


def test_nothing_is_dropped_without_a_key_or_a_rate():
    x = jnp.ones((4, 4))
    assert dropout(x, 0.5, None) is x
    assert dropout(x, 0.0, KEY) is x


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_is_a_probability_below_one(rate):
    with pytest.raises(InputError, match=r"model\.dropout = .* must be at least 0 and below 1"):
        check_rate("model.dropout", rate)
