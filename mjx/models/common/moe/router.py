"""The router: which experts a token takes, and with which probabilities."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from mjx.models.common.context import Context
from mjx.models.common.moe.balance import Said, balance, over_sum
from mjx.models.common.moe.config import MoEConfig, RouterConfig
from mjx.models.common.moe.float64 import in_float64
from mjx.models.common.parameter import buffer, parameter
from mjx.sharding import shard


class Routing(NamedTuple):
    """The experts of every token."""

    ids: Int[Array, "batch residual_sequence top_k"]
    """Of experts; their number is one that was dropped."""
    probabilities: Float[Array, "batch residual_sequence top_k"]


class Router(nnx.Module):
    """A linear map from a token to a logit for each expert."""

    def __init__(self, config: MoEConfig, embed: int, *, std: float, rngs: nnx.Rngs):
        kernel = std * jax.random.normal(rngs.params(), (embed, config.experts), jnp.float32)
        self.kernel = parameter(kernel, "embed", "expert_scores")
        zeros = jnp.zeros((config.experts,), jnp.float32)
        self.bias = parameter(zeros, "expert_scores") if config.router.bias else None
        biased = config.router.expert_bias_rate is not None
        self.expert_bias = buffer(zeros, "expert_scores") if biased else None
        self.config = config

    def __call__(
        self, x: Float[Array, "batch residual_sequence embed"], context: Context
    ) -> tuple[Routing, Said]:
        config, router = self.config, self.config.router
        arrays = _Arrays(
            self.jittered(x, context),
            # Whole on every device: were it split along its sum, the logits would depend on the mesh.
            shard(self.kernel[...].astype(jnp.float32), None, "expert_scores"),
            None if self.bias is None else self.bias[...],
            None if self.expert_bias is None else self.expert_bias[...],
            context.counted if router.sinkhorn and context.training else None,
        )

        def choices(arrays: _Arrays) -> _Choices:
            return _choices(config, arrays, sinkhorn=router.sinkhorn and context.training)

        choices = in_float64(choices) if router.precision == "float64" else choices
        logits, scores, ids, probabilities = choices(arrays)
        keep = None
        if config.capacity_factor is not None and context.training:
            keep = within_capacity(config, ids, probabilities, context.counted)
        said = balance(config, logits, scores, ids, keep, context)
        if keep is not None:
            ids = jnp.where(keep, ids, config.experts)
            probabilities = jnp.where(keep, probabilities, 0)
        return Routing(ids, probabilities.astype(jnp.float32)), said

    def jittered(self, x: Array, context: Context) -> Array:
        """What the router reads, in training."""
        jitter = self.config.router.jitter
        if not jitter or context.dropout_key is None:
            return x
        return x * jax.random.uniform(context.dropout_key, x.shape, x.dtype, 1 - jitter, 1 + jitter)


class _Arrays(NamedTuple):
    """What experts are chosen by."""

    x: Float[Array, "batch residual_sequence embed"]
    kernel: Float[Array, "embed expert_scores"]
    bias: Float[Array, " expert_scores"] | None
    expert_bias: Float[Array, " expert_scores"] | None
    counted: Float[Array, "batch sequence"] | None


class _Choices(NamedTuple):
    logits: Float[Array, "batch residual_sequence expert_scores"]
    scores: Float[Array, "batch residual_sequence expert_scores"]
    ids: Int[Array, "batch residual_sequence top_k"]
    probabilities: Float[Array, "batch residual_sequence top_k"]


def _choices(config: MoEConfig, arrays: _Arrays, *, sinkhorn: bool) -> _Choices:
    """In the dtype of the kernel, whatever the stream is: of bfloat16 most rows would have ties."""
    router, kernel = config.router, arrays.kernel
    precision = jax.lax.Precision.HIGHEST
    logits = jnp.einsum("bse,en->bsn", arrays.x.astype(kernel.dtype), kernel, precision=precision)
    if arrays.bias is not None:
        logits = logits + arrays.bias
    logits = shard(logits, "batch", "residual_sequence", "expert_scores")
    scores = _scores(router, logits)
    # Where softmax is taken of the chosen alone, logits choose: their order is that of the scores.
    ranked = logits if router.scores == "softmax" and router.normalized else scores
    if arrays.expert_bias is not None:
        ranked = ranked + arrays.expert_bias.astype(ranked.dtype)
    if sinkhorn:
        ranked = _balanced(logits, arrays.counted)
    ids = choose(router, ranked, config.top_k)
    return _Choices(logits, scores, ids, _probabilities(router, logits, scores, ids))


def _scores(router: RouterConfig, logits: Float[Array, "*tokens experts"]) -> Float[Array, "*tokens experts"]:
    if router.scores == "softmax":
        return jax.nn.softmax(logits, axis=-1)
    if router.scores == "sigmoid":
        return jax.nn.sigmoid(logits)
    return jnp.sqrt(jax.nn.softplus(logits))


def choose(
    router: RouterConfig, ranked: Float[Array, "*tokens experts"], top_k: int
) -> Int[Array, "*tokens top_k"]:
    """The best experts, in the best groups where there are groups; of equals those with lower numbers."""
    ranked = jax.lax.stop_gradient(ranked)
    if router.groups is not None and router.top_groups is not None:
        grouped = ranked.reshape(*ranked.shape[:-1], router.groups, -1)
        best, _ = jax.lax.top_k(grouped, top_k // router.top_groups)
        _, chosen = jax.lax.top_k(jnp.sum(best, axis=-1), router.top_groups)
        open_ = jnp.any(chosen[..., None] == jnp.arange(router.groups), axis=-2)
        ranked = jnp.where(open_[..., None], grouped, -jnp.inf).reshape(ranked.shape)
    return jax.lax.top_k(ranked, top_k)[1]


def _probabilities(
    router: RouterConfig,
    logits: Float[Array, "*tokens experts"],
    scores: Float[Array, "*tokens experts"],
    ids: Int[Array, "*tokens top_k"],
) -> Float[Array, "*tokens top_k"]:
    if router.scores == "softmax" and router.normalized:
        chosen = jax.nn.softmax(jnp.take_along_axis(logits, ids, axis=-1), axis=-1)
    else:
        chosen = jnp.take_along_axis(scores, ids, axis=-1)
        if router.normalized:
            chosen = over_sum(chosen)
    return chosen if router.scaling == 1 else chosen * router.scaling


def capacity(config: MoEConfig, tokens: int) -> int:
    """Tokens of so many that an expert takes at most."""
    assert config.capacity_factor is not None
    return math.ceil(tokens * config.top_k / config.experts * config.capacity_factor)


def within_capacity(
    config: MoEConfig,
    ids: Int[Array, "batch sequence top_k"],
    probabilities: Float[Array, "batch sequence top_k"],
    counted: Float[Array, "batch sequence"] | None,
) -> Bool[Array, "batch sequence top_k"]:
    """Which choices an expert takes: as many as it may, of the whole microbatch on all devices.

    Tokens that do not count come last, then the least probable, then those that stand later in their rows.
    """
    batch, sequence, top_k = ids.shape

    def flat(array: Array) -> Array:
        return jnp.swapaxes(array, 0, 1).reshape(-1)  # by position, then by row

    idle = jnp.zeros((batch, sequence), bool) if counted is None else counted == 0
    expert = flat(ids)
    last = flat(jnp.broadcast_to(idle[..., None], ids.shape)).astype(jnp.float32)
    if config.drop_by == "probability":
        last = 2 * jnp.max(probabilities) * last - flat(probabilities)
    places = jnp.arange(expert.size, dtype=jnp.int32)
    expert, _, order = jax.lax.sort((expert, jax.lax.stop_gradient(last), places), num_keys=2)
    sizes = jnp.bincount(expert, length=config.experts)
    rank = places - (jnp.cumsum(sizes) - sizes)[expert].astype(jnp.int32)
    rank = jnp.zeros_like(rank).at[order].set(rank, unique_indices=True)
    keep = rank < capacity(config, batch * sequence)
    return jnp.swapaxes(keep.reshape(sequence, batch, top_k), 0, 1)


def _balanced(
    logits: Float[Array, "batch sequence experts"], counted: Float[Array, "batch sequence"] | None
) -> Float[Array, "batch sequence experts"]:
    """Sinkhorn's scaling of exp(logits), until every expert has the same sum (to 1e-4, as Megatron-Core)."""
    shape, experts = logits.shape, logits.shape[-1]
    logits = jax.lax.stop_gradient(logits).reshape(-1, experts)
    real = jnp.ones((len(logits), 1), logits.dtype)
    if counted is not None:
        real = (counted.reshape(-1, 1) > 0).astype(logits.dtype)
    cost = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True)) * real
    tokens = jnp.maximum(jnp.sum(real), 1)

    def scale(columns: Array) -> tuple[Array, Array]:
        rows = 1 / tokens / (cost @ columns + 1e-8)
        return rows, 1 / experts / (rows @ cost + 1e-8)

    def step(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        old, _, _ = carry
        rows, columns = scale(old)
        return columns, rows, jnp.mean(jnp.abs(old - columns))

    ones = jnp.ones((experts + len(logits),), logits.dtype)
    start = ones[:experts], ones[experts:], jnp.asarray(1e9, logits.dtype)
    columns, rows, _ = jax.lax.while_loop(lambda carry: carry[2] > 1e-4, step, start)
    return jnp.where(real > 0, cost * columns * rows[:, None], logits).reshape(shape)
