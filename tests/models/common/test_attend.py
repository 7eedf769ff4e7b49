"""Kernels that know one device, on a mesh: the same numbers, and no device computes what is another's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from mjx.errors import InputError
from mjx.kernels.flash_attention import flash_attention
from mjx.models.common.attend import attend_per_device
from mjx.sharding import MeshConfig, build_mesh, use_mesh
from mjx.sharding.constrain import activation_spec

SEGMENTS = np.sort(np.random.RandomState(1).randint(0, 3, (8, 12)), axis=1).astype(np.int32)
ATTEND = functools.partial(flash_attention, implementation="xla", window=7)


def arrays():
    random = np.random.RandomState(0)
    shapes = {"q": (8, 12, 8, 4), "k": (8, 12, 4, 4), "v": (8, 12, 4, 6), "sinks": (8,)}
    return {name: random.randn(*shape).astype(np.float32) for name, shape in shapes.items()}


def results(call, arrays, segments, offset):
    def loss(arrays):
        ids = {f"{name}_segment_ids": segments for name in ("query", "key")}
        out = call(**arrays, **ids, query_offset=offset)
        return jnp.sum(out * jnp.cos(jnp.arange(out.size)).reshape(out.shape)), out

    return jax.jit(jax.grad(loss, has_aux=True))(arrays)


@pytest.mark.parametrize(
    ("segments", "offset"), [(None, 0), (SEGMENTS, 0), (None, np.arange(8, dtype=np.int32))]
)
@pytest.mark.parametrize(
    "mesh", [{"data": 8}, {"fsdp": 2, "tensor": 4}, {"data": 2, "fsdp": 2, "tensor": 2}], ids=str
)
def test_every_mesh_gives_the_results_and_gradients_of_one_device(mesh, segments, offset):
    alone = results(ATTEND, arrays(), segments, offset)
    with use_mesh(build_mesh(MeshConfig(**mesh))):
        ours = results(functools.partial(attend_per_device, ATTEND, "kernel"), arrays(), segments, offset)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, alone)


def test_a_device_is_given_its_own_rows_and_heads_and_nothing_is_communicated():
    seen = []

    def attend(q, k, v, **options):
        seen.append((q.shape, k.shape))
        return ATTEND(q, k, v, **options)

    given = arrays()
    with use_mesh(build_mesh(MeshConfig(data=2, tensor=4))) as mesh:
        names = {"q": "heads", "k": "kv_heads", "v": "kv_heads"}
        placed = {
            name: jax.device_put(
                given[name],
                NamedSharding(
                    mesh, activation_spec(("batch", "sequence", heads, "head_dim"), given[name].shape)
                ),
            )
            for name, heads in names.items()
        }
        call = functools.partial(attend_per_device, attend, "kernel", sinks=None)
        text = jax.jit(functools.partial(call, query_offset=0)).lower(**placed).compile().as_text()
    assert seen == [((4, 12, 2, 4), (4, 12, 1, 4))]
    assert not any(kind in text for kind in ("all-gather", "all-reduce", "all-to-all", "collective-permute"))


@pytest.mark.parametrize(
    ("mesh", "sentence"),
    [
        (
            {"context": 2, "data": 4},
            r"'kernel' takes whole sequences, but the mesh splits them \(mesh.context\)",
        ),
        ({"tensor": 8}, r"4 key/value heads are too few for mesh.tensor = 8; xla can"),
    ],
)
def test_a_mesh_that_splits_what_a_device_needs_whole_is_refused(mesh, sentence):
    with use_mesh(build_mesh(MeshConfig(**mesh))), pytest.raises(InputError, match=sentence):
        results(functools.partial(attend_per_device, ATTEND, "kernel"), arrays(), None, 0)
