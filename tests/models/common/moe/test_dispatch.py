"""Tokens to experts and back, in every way and on every mesh, are every expert on every token."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx.errors import InputError
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.moe import DispatchConfig, MoEConfig
from mjx.models.common.moe.dispatch import dispatch
from mjx.models.common.moe.experts import Weights
from mjx.models.common.moe.router import Routing
from mjx.sharding import MeshConfig, Rule, build_mesh, default_rules, use_mesh

EXPERTS, TOP_K, EMBED, FEATURES = 8, 2, 16, 8
BATCH, SEQUENCE = 8, 8
FOLDED = {
    "experts": Rule(parameters=("expert", "tensor"), activations=("expert", "tensor")),
    "expert_mlp": Rule(),
}
CONFIG = MoEConfig(
    experts=EXPERTS, top_k=TOP_K, mlp=MLPConfig(features=FEATURES, activation="silu", gated=True, bias=True)
)


def arrays(seed: int = 0, shape: tuple[int, int] = (BATCH, SEQUENCE)):
    random = np.random.RandomState(seed)

    def draw(*sizes: int) -> np.ndarray:
        return random.randn(*sizes).astype(np.float32)

    weights = Weights(
        draw(EXPERTS, EMBED, FEATURES),
        draw(EXPERTS, EMBED, FEATURES),
        draw(EXPERTS, FEATURES, EMBED),
        draw(EXPERTS, FEATURES),
        draw(EXPERTS, FEATURES),
        draw(EXPERTS, EMBED),
    )
    return draw(*shape, EMBED), random.rand(*shape, TOP_K).astype(np.float32), weights, draw(*shape, EMBED)


def choices() -> dict[str, np.ndarray]:
    """Routings, the worst among them."""
    random, shape = np.random.RandomState(1), (BATCH, SEQUENCE)
    free = np.argsort(random.rand(*shape, EXPERTS), axis=-1)[..., :TOP_K]
    one_expert = np.stack([np.full(shape, 5), np.full(shape, EXPERTS)], axis=-1)
    never = np.where(free == 3, 7 - free[..., ::-1], free) % EXPERTS
    never = np.where(never == 3, 4, never)
    dropped = np.where(random.rand(*shape, TOP_K) < 0.3, EXPERTS, free)
    found = {
        "anyhow": free,
        "all to one expert": one_expert,
        "all to the experts of one device": np.broadcast_to([6, 7], (*shape, TOP_K)),
        "one expert never": np.stack([never[..., 0], (never[..., 0] + 1) % 3], axis=-1),
        "some dropped": dropped,
        "nobody to anyone": np.full((*shape, TOP_K), EXPERTS),
    }
    return {name: ids.astype(np.int32) for name, ids in found.items()}


def every_expert(x, ids, probabilities, weights):
    """All experts on all tokens, weighed."""
    gate = jnp.einsum("bsd,edf->bsef", x, weights.gate) + weights.gate_bias
    up = jnp.einsum("bsd,edf->bsef", x, weights.up) + weights.up_bias
    y = jnp.einsum("bsef,efd->bsed", jax.nn.silu(gate) * up, weights.down) + weights.down_bias
    weight = jnp.sum((ids[..., None] == jnp.arange(EXPERTS)) * probabilities[..., None], axis=2)
    return jnp.einsum("bsed,bse->bsd", y, weight)


def with_gradients(function):
    """y, and the gradients of a random sum of it."""

    def run(x, probabilities, weights, slope, ids):
        def loss(x, probabilities, weights):
            y = function(x, ids, probabilities, weights)
            return jnp.sum(y * slope), y

        return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(x, probabilities, weights)

    return run


@functools.cache
def expected(name: str):
    x, probabilities, weights, slope = arrays()
    return jax.device_get(
        jax.jit(with_gradients(every_expert))(x, probabilities, weights, slope, choices()[name])
    )


def assert_same(ours, theirs):
    for path, value in jax.tree_util.tree_leaves_with_path(theirs):
        got = dict(jax.tree_util.tree_leaves_with_path(ours))[path]
        largest = max(np.abs(value).max(), 1e-6)
        np.testing.assert_allclose(got, value, rtol=1e-5, atol=1e-5 * largest, err_msg=str(path))


ALL = ("gather", "fixed", "ragged")
MESHES = {
    "one device": (MeshConfig(), {}, ("gather", "fixed")),
    "expert 8": (MeshConfig(data=1, expert=8), {}, ALL),
    "expert 4 × tensor 2": (MeshConfig(data=1, expert=4, tensor=2), {}, ALL),
    "expert 2 × tensor 4, folded": (
        MeshConfig(data=1, expert=2, tensor=4),
        FOLDED,
        ("gather", "fixed", "ragged"),
    ),
    "fsdp 2 × expert 2 × tensor 2": (MeshConfig(data=1, fsdp=2, expert=2, tensor=2), {}, ("fixed", "ragged")),
    "data 2 × context 2 × expert 2": (MeshConfig(data=2, context=2, expert=2), {}, ("fixed",)),
    "tensor 8": (MeshConfig(data=1, tensor=8), {}, ("gather",)),
}
CASES = [(mesh, way) for mesh, (_, _, ways) in MESHES.items() for way in ways]


@pytest.mark.parametrize(("mesh", "way"), CASES)
def test_every_way_on_every_mesh_is_exact_for_every_routing(mesh, way):
    config, rules, _ = MESHES[mesh]
    # With room for the worst routing, so that ragged is never replaced by gather.
    cell = 1.25 if way == "fixed" else EXPERTS
    moe = MoEConfig(**{**vars(CONFIG), "dispatch": DispatchConfig(way=way, cell=cell)})
    built = build_mesh(config, jax.devices()[:1] if mesh == "one device" else None)

    def run(x, ids, probabilities, weights):
        dispatched = dispatch(moe, x, Routing(ids, probabilities), weights)
        assert dispatched.left_out is None
        return dispatched.y

    with use_mesh(built, default_rules(overrides=rules)):
        program = jax.jit(with_gradients(run))
        for name, ids in choices().items():
            x, probabilities, weights, slope = arrays()
            assert_same(program(x, probabilities, weights, slope, ids), expected(name))


@pytest.mark.parametrize("sequence_parallel", [True, False])
def test_tokens_that_tensor_does_not_split_are_summed(sequence_parallel):
    moe = MoEConfig(**{**vars(CONFIG), "dispatch": DispatchConfig(way="fixed")})
    x, probabilities, weights, slope = arrays()
    rules = default_rules(sequence_parallel=sequence_parallel)
    with use_mesh(build_mesh(MeshConfig(data=2, expert=2, tensor=2)), rules):
        program = jax.jit(
            with_gradients(lambda x, ids, p, weights: dispatch(moe, x, Routing(ids, p), weights).y)
        )
        found = program(x, probabilities, weights, slope, choices()["anyhow"])
    assert_same(found, expected("anyhow"))


def test_one_token():
    x, probabilities, weights, _ = arrays(shape=(1, 1))
    ids = jnp.array([[[2, 6]]])
    program = jax.jit(lambda x, ids, p: dispatch(CONFIG, x, Routing(ids, p), weights).y)
    y = program(x, ids, probabilities)
    np.testing.assert_allclose(y, every_expert(x, ids, probabilities, weights), rtol=1e-5, atol=1e-5)


def test_a_full_cell_that_is_not_exact_leaves_choices_out_and_says_which():
    inexact = DispatchConfig(way="fixed", cell=1.0, exact=False)
    moe = MoEConfig(**{**vars(CONFIG), "dispatch": inexact})
    x, probabilities, weights, _ = arrays()
    ids = choices()["all to one expert"]
    dispatched = jax.jit(lambda x: dispatch(moe, x, Routing(ids, probabilities), weights))(x)
    room = BATCH * SEQUENCE * TOP_K // EXPERTS  # of one cell, on one device
    left_out = np.asarray(dispatched.left_out)
    assert left_out.sum() == BATCH * SEQUENCE - room
    assert not left_out[..., 1].any()  # these are nobody's
    kept = np.where(left_out, EXPERTS, ids)
    np.testing.assert_allclose(
        dispatched.y, every_expert(x, kept, probabilities, weights), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("exact", [True, False])
def test_ragged_without_room_goes_by_gather_or_leaves_the_last_senders_choices_out(exact):
    moe = MoEConfig(
        **{
            **vars(CONFIG),
            "dispatch": DispatchConfig(way="ragged", cell=1.0, exact=exact),
            "implementation": "xla",
        }
    )
    x, probabilities, weights, slope = arrays()
    ids = choices()["all to the experts of one device"]

    def run(x, ids, probabilities, weights):
        dispatched = dispatch(moe, x, Routing(ids, probabilities), weights)
        left_out.append(dispatched.left_out)
        return dispatched.y

    left_out = []
    with use_mesh(build_mesh(MeshConfig(data=1, expert=4), jax.devices()[:4])):
        found = jax.jit(with_gradients(run))(x, probabilities, weights, slope, ids)
        if exact:
            assert left_out == [None]
            assert_same(found, expected("all to the experts of one device"))
            return
        missed = jax.jit(lambda x: dispatch(moe, x, Routing(ids, probabilities), weights).left_out)(x)
    missed = np.asarray(missed)
    assert missed.sum() == (1 - 1 / 4) * BATCH * SEQUENCE * TOP_K  # the room is one device's share
    assert not missed[:2].any()  # of the first sender
    kept = np.where(missed, EXPERTS, ids)
    right = jax.jit(with_gradients(every_expert))(x, probabilities, weights, slope, kept)
    assert_same(found, jax.device_get(right))


@pytest.mark.parametrize("implementation", ["xla", "reference"])
def test_grouped_products_are_the_loop_with_the_mlp_in_it(implementation):
    moe = MoEConfig(**{**vars(CONFIG), "implementation": implementation})
    x, probabilities, weights, slope = arrays()
    program = jax.jit(with_gradients(lambda x, ids, p, w: dispatch(moe, x, Routing(ids, p), w).y))
    for name, ids in choices().items():
        assert_same(program(x, probabilities, weights, slope, ids), expected(name))


@pytest.mark.parametrize(
    ("mesh", "rules", "way", "sentence"),
    [
        (MeshConfig(data=-1, expert=8), {"experts": Rule()}, "gather", None),
        (MeshConfig(data=1, expert=2, tensor=4), FOLDED, "fixed", r"way = fixed needs tokens that are split"),
        (MeshConfig(data=1, expert=2, tensor=4), FOLDED, "ragged", r"way = ragged needs tokens that are spl"),
        (MeshConfig(data=1, tensor=8), {"expert_mlp": Rule(parameters=("fsdp",))}, "gather", None),
    ],
)
def test_what_a_mesh_cannot_hold_is_said(mesh, rules, way, sentence):
    moe = MoEConfig(**{**vars(CONFIG), "dispatch": DispatchConfig(way=way)})
    x, probabilities, weights, _ = arrays()
    ids = choices()["anyhow"]
    table = default_rules(sequence_parallel=False, overrides=rules)

    def run():
        with use_mesh(build_mesh(mesh), table):
            return jax.jit(lambda x: dispatch(moe, x, Routing(ids, probabilities), weights).y)(x)

    if sentence is None:
        np.testing.assert_allclose(run(), expected("anyhow")[1], rtol=1e-5, atol=1e-4)
    else:
        with pytest.raises(InputError, match=sentence):
            run()


def test_experts_that_do_not_divide_are_named():
    with use_mesh(build_mesh(MeshConfig(data=1, expert=8))):
        x, probabilities, weights, _ = arrays()
        fewer = jax.tree.map(lambda array: array[:6], weights)
        with pytest.raises(InputError, match=r"axis 'experts' of size 6 does not divide over expert 8"):
            dispatch(CONFIG, x, Routing(choices()["anyhow"], probabilities), fewer)
