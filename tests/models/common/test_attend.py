"""Kernels that know one device, on a mesh: the same numbers, and no device computes what is another's."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from mjx.errors import InputError
from mjx.kernels.capability import Capability
from mjx.kernels.flash_attention import flash_attention
from mjx.kernels.flash_attention.options import AttentionOptions
from mjx.models.common import attend as attend_module
from mjx.models.common.attend import Scores, attend, attend_per_device, refusal_per_device
from mjx.sharding import MeshConfig, build_mesh, use_mesh
from mjx.sharding.constrain import activation_spec

SEGMENTS = np.sort(np.random.RandomState(1).randint(0, 3, (8, 12)), axis=1).astype(np.int32)


def arrays():
    random = np.random.RandomState(0)
    shapes = {"q": (8, 12, 8, 4), "k": (8, 12, 4, 4), "v": (8, 12, 4, 6), "sinks": (8,)}
    return {name: random.randn(*shape).astype(np.float32) for name, shape in shapes.items()}


def compute(q, k, v, options):
    return flash_attention(q, k, v, **options._asdict(), implementation="xla")


def results(call, arrays, segments, offset):
    def loss(arrays):
        ids = {f"{name}_segment_ids": segments for name in ("query", "key")}
        options = AttentionOptions(0.5, window=7, query_offset=offset, sinks=arrays["sinks"], **ids)
        out = call(arrays["q"], arrays["k"], arrays["v"], options)
        return jnp.sum(out * jnp.cos(jnp.arange(out.size)).reshape(out.shape)), out

    return jax.jit(jax.grad(loss, has_aux=True))(arrays)


@pytest.mark.parametrize(
    ("segments", "offset"), [(None, 0), (SEGMENTS, 0), (None, np.arange(8, dtype=np.int32))]
)
@pytest.mark.parametrize(
    "mesh", [{"data": 8}, {"fsdp": 2, "tensor": 4}, {"data": 2, "fsdp": 2, "tensor": 2}], ids=str
)
def test_every_mesh_gives_the_results_and_gradients_of_one_device(mesh, segments, offset):
    alone = results(compute, arrays(), segments, offset)
    with use_mesh(build_mesh(MeshConfig(**mesh))):
        ours = results(functools.partial(attend_per_device, compute), arrays(), segments, offset)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, alone)


def test_a_device_is_given_its_own_rows_and_heads_and_nothing_is_communicated():
    seen = []

    def watched(q, k, v, options):
        seen.append((q.shape, k.shape))
        return compute(q, k, v, options)

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
        call = functools.partial(attend_per_device, watched, options=AttentionOptions(0.5))
        text = jax.jit(call).lower(**placed).compile().as_text()
    assert seen == [((4, 12, 2, 4), (4, 12, 1, 4))]
    assert not any(kind in text for kind in ("all-gather", "all-reduce", "all-to-all", "collective-permute"))


@pytest.mark.parametrize(
    ("mesh", "sentence"),
    [
        ({"context": 2, "data": 4}, "takes whole sequences, but the mesh splits them (mesh.context)"),
        (
            {"tensor": 8},
            "takes as many shares of key/value heads as of query heads, but 4 key/value heads are too few "
            "for mesh.tensor = 8",
        ),
    ],
)
def test_a_mesh_that_splits_what_a_device_needs_whole_is_refused(mesh, sentence):
    given = arrays()
    with use_mesh(build_mesh(MeshConfig(**mesh))):
        assert refusal_per_device(given["q"], given["k"]) == sentence


@pytest.mark.parametrize("wanted", ["auto", "kernel"])
@pytest.mark.parametrize("mesh", [None, {"data": 4, "tensor": 2}, {"tensor": 8}], ids=str)
def test_a_kernel_runs_on_each_device_whether_it_is_named_or_chosen(mesh, wanted, monkeypatch):
    """Where it cannot, `auto` takes what XLA can split, and a name is refused."""
    seen = []

    def record(q, k, v, *, implementation, **options):
        seen.append((implementation, q.shape))
        return flash_attention(q, k, v, implementation="xla", **options)

    kernel = Capability(platforms=("cpu",), dtypes=(), features=frozenset(), per_device=True)
    monkeypatch.setattr(attend_module, "chosen_implementation", lambda *_: "kernel")
    monkeypatch.setitem(attend_module.IMPLEMENTATIONS, "kernel", kernel)
    monkeypatch.setattr(attend_module, "flash_attention", record)
    q, k, v, _ = map(jnp.asarray, arrays().values())
    alone = flash_attention(q, k, v)
    scores = Scores(implementation=wanted)
    with contextlib.nullcontext() if mesh is None else use_mesh(build_mesh(MeshConfig(**mesh))):
        if mesh == {"tensor": 8} and wanted == "kernel":
            with pytest.raises(InputError, match=r"implementation = 'kernel' takes as many .*; xla can"):
                attend(q, k, v, scores)
            return
        out = jax.jit(lambda *arrays: attend(*arrays, scores))(q, k, v)
    np.testing.assert_allclose(out, alone, atol=1e-5)
    expected = {str(None): (8, 8), str({"data": 4, "tensor": 2}): (2, 4), str({"tensor": 8}): (8, 8)}
    rows, heads = expected[str(mesh)]
    name = "xla" if mesh == {"tensor": 8} else "kernel"
    assert set(seen) == {(name, (rows, 12, heads, 4))}
