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
from mjx.kernels.flash_attention.relative_bias import RelativeBuckets
from mjx.models.common.attention import attend as attend_module
from mjx.models.common.attention.attend import Scores, attend, attend_per_device
from mjx.models.common.split import in_order, in_row_order, token_order
from mjx.sharding import MeshConfig, Rule, build_mesh, default_rules, use_mesh
from mjx.sharding.constrain import activation_spec

SEGMENTS = np.sort(np.random.RandomState(1).randint(0, 3, (8, 16)), axis=1).astype(np.int32)


def arrays():
    random = np.random.RandomState(0)
    shapes = {"q": (8, 16, 8, 4), "k": (8, 16, 4, 4), "v": (8, 16, 4, 6), "sinks": (8,)}
    return {name: random.randn(*shape).astype(np.float32) for name, shape in shapes.items()}


def compute(q, k, v, options):
    return flash_attention(q, k, v, **options._asdict(), implementation="xla")


def results(call, arrays, segments, offset, buckets):
    if buckets is not None:
        arrays["relative_bias"] = np.random.RandomState(2).randn(8, 8).astype(np.float32)

    def loss(arrays):
        ids = {f"{name}_segment_ids": segments for name in ("query", "key")}
        options = AttentionOptions(0.5, window=7, query_offset=offset, sinks=arrays["sinks"], **ids)
        if buckets is not None:
            options = options._replace(relative_bias=arrays["relative_bias"], relative_buckets=buckets)
            options = options._replace(causal=not buckets.two_sided, window=None)
        out = call(arrays["q"], arrays["k"], arrays["v"], options)
        return jnp.sum(out * jnp.cos(jnp.arange(out.size)).reshape(out.shape)), out

    return jax.jit(jax.grad(loss, has_aux=True))(arrays)


ZIGZAG = default_rules(zigzag=True)
MESHES = {
    "data 8": MeshConfig(data=8),
    "fsdp 2 × tensor 4": MeshConfig(data=1, fsdp=2, tensor=4),
    "tensor 8, of 4 key/value heads": MeshConfig(data=1, tensor=8),
    "data 2 × context 2 × tensor 2": MeshConfig(data=2, context=2, tensor=2),
    "context 4 × tensor 2, zigzag": MeshConfig(data=1, context=4, tensor=2),
}


@pytest.mark.parametrize(
    ("segments", "offset", "buckets"),
    [
        (None, 0, None),
        (SEGMENTS, 0, None),
        (None, np.arange(8, dtype=np.int32), RelativeBuckets(two_sided=False, max_distance=12)),
        (SEGMENTS, 0, RelativeBuckets(two_sided=True, max_distance=9)),
    ],
    ids=["plain", "segments", "offsets, relative bias", "segments, two-sided relative bias"],
)
@pytest.mark.parametrize("mesh", MESHES)
def test_every_mesh_gives_the_results_and_gradients_of_one_device(mesh, segments, offset, buckets):
    alone = results(compute, arrays(), segments, offset, buckets)
    with use_mesh(build_mesh(MESHES[mesh]), default_rules(zigzag="zigzag" in mesh)):
        ours = results(functools.partial(in_parts, compute), arrays(), segments, offset, buckets)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, alone)


def in_parts(compute, q, k, v, options):
    """`attend_per_device`, of tokens in the devices' order."""
    order = token_order(q.shape[1])
    ids = {name: getattr(options, name) for name in ("query_segment_ids", "key_segment_ids")}
    laid = {name: None if array is None else in_order(order, array) for name, array in ids.items()}
    q, k, v = (in_order(order, array) for array in (q, k, v))
    return in_row_order(order, attend_per_device(compute, q, k, v, options._replace(**laid)))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("rules", [None, ZIGZAG], ids=["in order", "zigzag"])
def test_no_part_looks_at_keys_that_none_of_its_queries_could_see(rules, causal):
    seen = []

    def watched(q, k, v, options):
        seen.append((q.shape[1], k.shape[1], jnp.ndim(options.query_offset)))
        return compute(q, k, v, options)

    given = arrays()
    with use_mesh(build_mesh(MeshConfig(context=2, data=4)), rules):
        jax.eval_shape(
            lambda q, k, v: attend_per_device(watched, q, k, v, AttentionOptions(0.5, causal=causal)),
            *(given[name] for name in "qkv"),
        )
    in_order, in_zigzag = [(8, 16, 1)], [(4, 8, 1), (4, 16, 1)]
    assert seen == ([(8, 16, 0)] if not causal else in_order if rules is None else in_zigzag)


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_rows_that_the_mesh_splits_are_attended_to_whole_with_dropout_too(rate):
    given = arrays()
    q, k, v, key = *(given[name] for name in "qkv"), jax.random.key(0)
    call = jax.jit(lambda *qkv: attend(*qkv, Scores(dropout=rate), dropout_key=key))
    alone = call(q, k, v)
    with use_mesh(build_mesh(MeshConfig(context=4, data=2))):
        ours = jax.jit(lambda *qkv: attend(*qkv, Scores(dropout=rate), dropout_key=key))(q, k, v)
    np.testing.assert_allclose(ours, alone, atol=1e-5)


def test_dropped_probabilities_are_refused_where_tokens_stand_in_another_order():
    given, key = arrays(), jax.random.key(0)
    sentence = r"sharding\.zigzag = true .* attention\.dropout = 0\.3"
    with (
        use_mesh(build_mesh(MeshConfig(context=2, data=4)), ZIGZAG),
        pytest.raises(InputError, match=sentence),
    ):
        attend(*(given[name] for name in "qkv"), Scores(dropout=0.3), dropout_key=key)


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
    assert seen == [((4, 16, 2, 4), (4, 16, 1, 4))]
    assert not any(kind in text for kind in ("all-gather", "all-reduce", "all-to-all", "collective-permute"))


@pytest.mark.parametrize("wanted", ["auto", "kernel"])
@pytest.mark.parametrize(
    ("mesh", "rules"),
    [(None, None), ({"data": 4, "tensor": 2}, None), ({"tensor": 8}, None), ({"tensor": 8}, "elsewhere")],
    ids=str,
)
def test_a_kernel_runs_on_each_device_whether_it_is_named_or_chosen(mesh, rules, wanted, monkeypatch):
    """Where it cannot, `auto` takes what XLA can split, and a name is refused."""
    seen = []

    def record(q, k, v, *, implementation, **options):
        seen.append((implementation, q.shape, k.shape[2]))
        return flash_attention(q, k, v, implementation="xla", **options)

    kernel = Capability(platforms=("cpu",), dtypes=(), features=frozenset(), per_device=True)
    monkeypatch.setattr(attend_module, "chosen_implementation", lambda *_: "kernel")
    monkeypatch.setitem(attend_module.IMPLEMENTATIONS, "kernel", kernel)
    monkeypatch.setattr(attend_module, "flash_attention", record)
    q, k, v, _ = map(jnp.asarray, arrays().values())
    alone = flash_attention(q, k, v)
    scores = Scores(implementation=wanted)
    elsewhere = default_rules(overrides={"heads": Rule()}) if rules else None
    k, v = (k, v) if rules is None else (jnp.repeat(k, 2, axis=2), jnp.repeat(v, 2, axis=2))
    with contextlib.nullcontext() if mesh is None else use_mesh(build_mesh(MeshConfig(**mesh)), elsewhere):
        if rules and wanted == "kernel":
            with pytest.raises(InputError, match=r"implementation = 'kernel' takes .* heads over nothing"):
                attend(q, k, v, scores)
            return
        out = jax.jit(lambda *arrays: attend(*arrays, scores))(q, k, v)
    np.testing.assert_allclose(out, alone, atol=1e-5)
    shares = {None: (8, 8, 4), "data": (2, 4, 2), "tensor": (8, 1, 1)}
    rows, heads, kv_heads = shares[mesh and next(iter(mesh))] if rules is None else (8, 8, 8)
    name = "kernel" if rules is None else "xla"
    assert set(seen) == {(name, (rows, 16, heads, 4), kv_heads)}
