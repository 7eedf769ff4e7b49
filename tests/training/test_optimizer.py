import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mjx.errors import InputError
from mjx.training.muon import NEWTON_SCHULZ_COEFFICIENTS, MuonConfig, scale_by_muon
from mjx.training.optimizer import (
    OptimizerConfig,
    apply_gradients,
    build_optimizer,
    global_norm,
    like_params,
    scale_to_norm,
    updates_applied,
)

GOLDENS = np.load(Path(__file__).parents[1] / "goldens/training/optimizer.npz")
STEPS = 6
AXES = {"matrix": ("embed", "mlp"), "vector": ("mlp",)}
CONFIGS = {
    "adamw": dict(name="adamw", beta1=0.9, beta2=0.95, eps=1e-5),
    "sgd": dict(name="sgd", momentum=0.9),
    "sgd_nesterov": dict(name="sgd", momentum=0.9, nesterov=True),
}
NAMES = ("adamw", "sgd", "lion", "muon")


def golden_schedule(step):
    return jnp.asarray(GOLDENS["learning_rates"], jnp.float32)[step]


def trajectory(config, axes, start, grads, schedule=golden_schedule):
    """Parameters after each update, and the metrics."""
    optimizer = build_optimizer(config, schedule, axes)

    @jax.jit
    def update(params, state, grads):
        return apply_gradients(
            optimizer, config, schedule, loss=jnp.float32(1), grads=grads, state=state, params=params
        )

    params = jax.tree.map(jnp.asarray, start)
    state = optimizer.init(params)
    after = []
    for step in range(STEPS):
        params, state, metrics = update(params, state, {k: jnp.asarray(g[step]) for k, g in grads.items()})
        after.append((params, jax.device_get(metrics)))
    return after


@pytest.fixture
def golden_inputs():
    return tuple({k: GOLDENS[f"{part}/{k}"] for k in AXES} for part in ("start", "grads"))


@pytest.mark.parametrize("clip_norm", [None, 0.5], ids=["plain", "clip"])
@pytest.mark.parametrize("name", CONFIGS)
def test_six_updates_equal_pytorchs_to_float32_rounding(name, clip_norm, golden_inputs):
    config = OptimizerConfig(weight_decay=0.1, clip_norm=clip_norm, **CONFIGS[name])
    start, grads = golden_inputs
    for step, (params, metrics) in enumerate(trajectory(config, AXES, start, grads)):
        for k in AXES:
            expected = GOLDENS[f"{name}/{'clip' if clip_norm else 'plain'}/{k}"][step]
            np.testing.assert_allclose(params[k], expected, rtol=2e-6, atol=2e-6)
        np.testing.assert_allclose(metrics["grad_norm"], GOLDENS["norms"][step], rtol=1e-6)
        np.testing.assert_allclose(metrics["learning_rate"], GOLDENS["learning_rates"][step], rtol=1e-6)
        assert metrics["update_skipped"] == 0


def test_lion_follows_algorithm_2_of_its_paper(golden_inputs):
    start, grads = golden_inputs
    config = OptimizerConfig(name="lion", beta1=0.9, beta2=0.99, weight_decay=0.1, clip_norm=None)
    p = {k: v.astype(np.float64) for k, v in start.items()}
    m = {k: np.zeros_like(v) for k, v in p.items()}
    for step, (params, _) in enumerate(trajectory(config, AXES, start, grads)):
        for k in AXES:
            update = np.sign(0.9 * m[k] + 0.1 * grads[k][step])
            decay = 0.1 if k == "matrix" else 0.0
            p[k] = p[k] - GOLDENS["learning_rates"][step] * (update + decay * p[k])
            m[k] = 0.99 * m[k] + 0.01 * grads[k][step]
            np.testing.assert_allclose(params[k], p[k], rtol=1e-6, atol=1e-6)


MUON_AXES = {
    "query": ("layers", "embed", "heads", "head_dim"),
    "output": ("layers", "heads", "head_dim", "embed"),
    "experts": ("layers", "experts", "embed", "mlp"),
    "router": ("embed", "experts"),
    "embedding": ("vocab", "embed"),
    "norm": ("layers", "embed"),
}
MUON_SHAPES = {
    "query": (3, 8, 2, 6),
    "output": (3, 2, 6, 8),
    "experts": (2, 2, 8, 5),
    "router": (8, 4),
    "embedding": (11, 8),
    "norm": (3, 8),
}
MUON_MATRICES = {"query": (8, 12), "output": (12, 8), "experts": (8, 5), "router": (8, 4)}


def newton_schulz_float64(x, coefficients, steps):
    x = x / np.linalg.norm(x)
    for step in range(steps):
        a, b, c = NEWTON_SCHULZ_COEFFICIENTS[coefficients][
            step % len(NEWTON_SCHULZ_COEFFICIENTS[coefficients])
        ]
        x = a * x + b * (x @ x.T) @ x + c * (x @ x.T) @ (x @ x.T) @ x
    return x


@pytest.mark.parametrize(
    "muon",
    [
        MuonConfig(),
        MuonConfig(momentum=0.8, nesterov=False, coefficients="simple", newton_schulz_steps=3, scale="shape"),
        MuonConfig(newton_schulz_steps=7, scale="unit-rms", scale_factor=1.0),
    ],
    ids=["default", "simple", "unit-rms"],
)
def test_muon_orthogonalises_each_layers_matrix_for_itself_and_leaves_the_rest_to_adamw(muon):
    rng = np.random.RandomState(1)
    start = {k: rng.randn(*s).astype(np.float32) for k, s in MUON_SHAPES.items()}
    grads = {k: rng.randn(STEPS, *s).astype(np.float32) for k, s in MUON_SHAPES.items()}
    config = OptimizerConfig(name="muon", weight_decay=0.1, clip_norm=None, muon=muon)
    updates = trajectory(config, MUON_AXES, start, grads)
    adamw = trajectory(OptimizerConfig(weight_decay=0.1, clip_norm=None), MUON_AXES, start, grads)
    p = {k: start[k].astype(np.float64) for k in MUON_MATRICES}
    m = {k: np.zeros_like(v) for k, v in p.items()}
    for step in range(STEPS):
        params = updates[step][0]
        for k in ("embedding", "norm"):
            np.testing.assert_array_equal(params[k], adamw[step][0][k])
        for k, (inputs, outputs) in MUON_MATRICES.items():
            g = grads[k][step].astype(np.float64)
            m[k] = muon.momentum * m[k] + (1 - muon.momentum) * g
            mean = muon.momentum * m[k] + (1 - muon.momentum) * g if muon.nesterov else m[k]
            direction = np.stack(
                [
                    newton_schulz_float64(matrix, muon.coefficients, muon.newton_schulz_steps)
                    for matrix in mean.reshape(-1, inputs, outputs)
                ]
            ).reshape(g.shape)
            scale = {
                "spectral": max(inputs, outputs) ** 0.5,
                "shape": max(1, outputs / inputs) ** 0.5,
                "unit-rms": (outputs / inputs) ** 0.5,
            }[muon.scale]
            rate = GOLDENS["learning_rates"][step]
            p[k] = p[k] * (1 - rate * 0.1) - rate * muon.scale_factor * scale * direction
            np.testing.assert_allclose(params[k], p[k], atol=3e-6)


def test_muon_leaves_experts_on_their_devices_where_optax_gathers_them():
    mesh = Mesh(np.array(jax.devices()[:4]), ("expert",))
    experts = NamedSharding(mesh, PartitionSpec(None, "expert"))
    params = {"up": jax.ShapeDtypeStruct((2, 8, 16, 32), jnp.float32, sharding=experts)}
    ours = scale_by_muon(MuonConfig(), {"up": ("layers", "experts", "embed", "mlp")})
    matrices = {"up": optax.contrib.MuonDimensionNumbers(2, 3)}
    theirs = optax.contrib.muon(1.0, muon_weight_dimension_numbers=matrices)

    def collectives(optimizer):
        shapes = jax.eval_shape(optimizer.init, params)
        state = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=experts if leaf.ndim == 4 else None
            ),
            shapes,
        )
        program = jax.jit(optimizer.update).lower(params, state, params).compile().as_text()
        return set(re.findall(r" (all-gather|all-to-all|all-reduce|collective-permute)\(", program))

    assert collectives(ours) == set()
    assert "all-gather" in collectives(theirs)


def test_muons_direction_is_nearly_orthogonal_and_of_adamws_size():
    rng = np.random.RandomState(2)
    axes, shape = {"w": ("layers", "embed", "mlp")}, (2, 32, 96)
    config = OptimizerConfig(name="muon", weight_decay=0.0, clip_norm=None)
    optimizer = build_optimizer(config, lambda step: jnp.float32(1), axes)
    params = {"w": jnp.zeros(shape)}
    updates, _ = jax.jit(optimizer.update)(
        {"w": jnp.asarray(rng.randn(*shape))}, optimizer.init(params), params
    )
    singular_values = np.linalg.svd(np.asarray(updates["w"]) / (0.2 * 96**0.5), compute_uv=False)
    assert 0.7 < singular_values.min() < singular_values.max() < 1.3
    assert 0.15 < float(jnp.sqrt(jnp.mean(updates["w"] ** 2))) < 0.25


@pytest.mark.parametrize("name", NAMES)
def test_stacked_norms_and_biases_are_not_decayed_and_matrices_and_tables_are(name):
    config = OptimizerConfig(name=name, weight_decay=0.5, clip_norm=None)
    axes = MUON_AXES | {"query_bias": ("layers", "heads", "head_dim"), "sinks": ("layers", "heads")}
    shapes = MUON_SHAPES | {"query_bias": (3, 2, 6), "sinks": (3, 2)}
    params = {k: jnp.ones(s) for k, s in shapes.items()}
    optimizer = build_optimizer(config, lambda step: jnp.float32(0.1), axes)
    update = jax.jit(optimizer.update)
    updates, _ = update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    decayed = {k for k, update in updates.items() if np.allclose(update, -0.05)}
    untouched = {k for k, update in updates.items() if np.all(np.asarray(update) == 0)}
    assert decayed == {"query", "output", "experts", "router", "embedding"}
    assert untouched == {"norm", "query_bias", "sinks"}


def test_clipping_scales_all_gradients_alike_to_the_largest_norm_allowed():
    grads = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([[4.0]], jnp.bfloat16)}
    norm = global_norm(grads)
    assert float(norm) == 5.0
    clipped = scale_to_norm(grads, norm, 1.0)
    np.testing.assert_allclose(clipped["a"], [0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(clipped["b"], [[0.8]], rtol=1e-6)
    np.testing.assert_array_equal(scale_to_norm(grads, norm, 10.0)["a"], grads["a"])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_a_non_finite_update_changes_nothing_and_is_counted_then_training_goes_on(name, bad):
    config = OptimizerConfig(name=name, non_finite="skip")

    def schedule(step):
        return 0.01 * (step + 1.0)

    optimizer = build_optimizer(config, schedule, AXES)
    params = {"matrix": jnp.ones((3, 4)), "vector": jnp.ones(4)}
    grads = jax.tree.map(lambda p: 0.1 * p, params)
    broken = grads | {"vector": jnp.array([0.1, jnp.inf, 0.1, 0.1])} if bad == "gradient" else grads
    loss = jnp.float32(jnp.nan if bad == "loss" else 1.0)

    @jax.jit
    def update(params, state, grads, loss):
        return apply_gradients(
            optimizer, config, schedule, loss=loss, grads=grads, state=state, params=params
        )

    first = update(params, optimizer.init(params), grads, jnp.float32(1))
    skipped = update(first[0], first[1], broken, loss)
    assert float(skipped[2]["update_skipped"]) == 1.0
    for before, after in zip(jax.tree.leaves(first[:2]), jax.tree.leaves(skipped[:2]), strict=True):
        np.testing.assert_array_equal(before, after)
    assert int(updates_applied(skipped[1])) == 1
    resumed, straight = (update(*run[:2], grads, jnp.float32(1)) for run in (skipped, first))
    assert float(resumed[2]["learning_rate"]) == pytest.approx(0.02)
    np.testing.assert_array_equal(resumed[0]["matrix"], straight[0]["matrix"])


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_parameters_keep_float32_moments_and_their_own_dtype(name):
    config = OptimizerConfig(name=name)
    optimizer = build_optimizer(config, lambda step: jnp.float32(0.01), AXES)
    params = {"matrix": jnp.ones((3, 4), jnp.bfloat16), "vector": jnp.ones(4, jnp.bfloat16)}
    state = optimizer.init(params)
    updates, state = optimizer.update(params, state, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(state) if leaf.ndim} == {jnp.dtype("float32")}
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype("float32")}
    assert optax.apply_updates(params, updates)["matrix"].dtype == jnp.bfloat16


@pytest.mark.parametrize("name", NAMES)
def test_moment_dtype_halves_the_first_moment_only(name):
    config = OptimizerConfig(name=name, moment_dtype="bfloat16")
    optimizer = build_optimizer(config, lambda step: jnp.float32(0.01), AXES)
    params = {"matrix": jnp.ones((3, 4)), "vector": jnp.ones(4)}
    for state in (init := optimizer.init(params), optimizer.update(params, init, params)[1]):
        dtypes = [(str(leaf.dtype), leaf.ndim) for leaf in jax.tree.leaves(state) if leaf.ndim]
        second = {"adamw": [("float32", 1), ("float32", 2)], "muon": [("float32", 1)]}.get(name, [])
        assert sorted(dtypes) == [("bfloat16", 1), ("bfloat16", 2), *second]


@pytest.mark.parametrize("name", NAMES)
def test_every_moment_finds_the_value_of_its_own_parameter(name):
    params = {"a": {"kernel": jnp.zeros((3, 4))}, "b": {"kernel": jnp.zeros((3, 4)), "scale": jnp.zeros(4)}}
    axes = {"a": {"kernel": AXES["matrix"]}, "b": {"kernel": AXES["matrix"], "scale": AXES["vector"]}}
    values = {"a": {"kernel": "a.kernel"}, "b": {"kernel": "b.kernel", "scale": "b.scale"}}
    optimizer = build_optimizer(OptimizerConfig(name=name), lambda step: jnp.float32(1), axes)
    abstract = jax.eval_shape(optimizer.init, params)
    placed = like_params(abstract, params, values, "replicated")
    assert jax.tree.structure(placed) == jax.tree.structure(abstract)
    for (path, leaf), value in zip(
        jax.tree_util.tree_leaves_with_path(abstract), jax.tree.leaves(placed), strict=True
    ):
        expected = ".".join(key.key for key in path[-2:]) if leaf.shape else "replicated"
        assert value == expected


@pytest.mark.parametrize(
    ("config", "fields", "sentence"),
    [
        (OptimizerConfig, dict(beta2=1.0), "beta2 = 1.0"),
        (OptimizerConfig, dict(eps=0.0), "eps = 0.0 must be positive"),
        (OptimizerConfig, dict(eps=1e-45), "eps = 1e-45 must be from 1e-30"),
        (OptimizerConfig, dict(beta1=0.999999999), "beta1 = 0.999999999 is 1 in float32: it must be at most"),
        (OptimizerConfig, dict(weight_decay=-0.1), "weight_decay = -0.1"),
        (OptimizerConfig, dict(clip_norm=0.0), "clip_norm = 0.0"),
        (OptimizerConfig, dict(name="sgd", momentum=0.0, nesterov=True), "nesterov = True"),
        (MuonConfig, dict(momentum=1.0), "momentum = 1.0"),
        (MuonConfig, dict(newton_schulz_steps=0), "newton_schulz_steps = 0"),
        (MuonConfig, dict(scale_factor=0.0), "scale_factor = 0.0"),
        (MuonConfig, dict(scale_factor=float("inf")), "scale_factor = inf"),
    ],
)
def test_a_config_that_cannot_work_is_refused_by_name_and_value(config, fields, sentence):
    with pytest.raises(InputError, match=sentence):
        config(**fields)


def test_the_extremes_of_adamw_that_are_taken_give_finite_updates():
    config = OptimizerConfig(eps=1e-30, beta1=0.9999999, beta2=0.9999999)
    params, axes = {"kernel": jnp.ones((2, 2))}, {"kernel": ("embed", "mlp")}
    optimizer = build_optimizer(config, golden_schedule, axes)
    for gradient in (0.0, 1e-3):  # an unused row of a table has no gradient at all
        updates, _ = optimizer.update({"kernel": jnp.full((2, 2), gradient)}, optimizer.init(params), params)
        assert np.isfinite(updates["kernel"]).all()
