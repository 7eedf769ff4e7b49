"""What a device's own experts make of tokens that are here."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from mjx.kernels.grouped_matmul import grouped_matmul
from mjx.kernels.grouped_matmul.fused import grouped_sum
from mjx.models.common.moe.experts import OneExpert, Weights
from mjx.models.common.moe.permutation import gathered_sum, sort_choices, spread
from mjx.models.common.moe.router import Routing


def own_experts(
    expert: OneExpert,
    tokens: Float[Array, "tokens embed"],
    routing: Routing,
    weights: Weights,
    implementation: str,
) -> Float[Array, "tokens embed"]:
    """Every token's sum over those of its experts that are here: `ids` count these, from 0."""
    experts, ids, probabilities = weights.up.shape[0], routing.ids, routing.probabilities
    ids = jnp.where((ids >= 0) & (ids < experts), ids, experts)
    chosen = sort_choices(ids, experts)
    factors, token = probabilities.reshape(-1)[chosen.order], chosen.order // ids.shape[1]
    if implementation == "auto":
        return grouped_sum(expert, tokens, factors, weights, token, chosen.sizes)
    # Rows of no expert here come last; what is made of them is never read.
    mine = jnp.sum(chosen.sizes)
    token = jnp.where(jnp.arange(token.size) < mine, token, tokens.shape[0])
    rows = jnp.where(
        ids < experts, jnp.append(chosen.start, 0)[ids] + chosen.place.reshape(ids.shape), token.size
    )
    group = jnp.minimum(ids.reshape(-1)[chosen.order], experts - 1)
    biases = {
        name: array if array is None or "bias" not in name else array[group]
        for name, array in weights._asdict().items()
    }

    def product(rows: Array, kernels: Array) -> Array:
        return grouped_matmul(rows, kernels, chosen.sizes, implementation=implementation)

    y = expert(spread(tokens, token, rows), factors, Weights(**biases), product)  # type: ignore[arg-type]
    return gathered_sum(y, rows, token)
