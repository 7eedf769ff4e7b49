"""Every device of an expert group gets all tokens of the group, and computes its own experts' part.

Exact for every routing, and the cheaper way for few devices or many experts a token.
"""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from mjx.kernels.grouped_matmul import grouped_matmul
from mjx.kernels.grouped_matmul.fused import grouped_sum
from mjx.models.common.moe.experts import KEPT, OneExpert, Weights
from mjx.models.common.moe.layout import Layout, axis_of
from mjx.models.common.moe.permutation import gathered_sum, sort_choices, spread
from mjx.models.common.moe.router import Routing


def gather(
    layout: Layout,
    expert: OneExpert,
    tokens: Float[Array, "tokens embed"],
    routing: Routing,
    weights: Weights,
    implementation: str,
    *,
    keep: bool = True,
) -> Float[Array, "tokens embed"]:
    """The sum of every token over its experts; `weights` are this device's.

    `keep` false: the backward pass gathers the tokens again.
    """
    group = set(layout.owners) | set(layout.hidden)
    split = layout.ordered(group & set(layout.token_axes))
    whole = layout.ordered(group - set(layout.token_axes))
    if split:
        tokens, routing = jax.tree.map(
            lambda array: jax.lax.all_gather(array, axis_of(split), tiled=True), (tokens, routing)
        )
    if keep:
        tokens, routing = jax.tree.map(lambda array: checkpoint_name(array, KEPT), (tokens, routing))
    y = _own_experts(layout, expert, tokens, routing, weights, implementation)
    if split:
        y = jax.lax.psum_scatter(y, axis_of(split), scatter_dimension=0, tiled=True)
    return jax.lax.psum(y, axis_of(whole)) if whole else y


def _own_experts(
    layout: Layout,
    expert: OneExpert,
    tokens: Float[Array, "tokens embed"],
    routing: Routing,
    weights: Weights,
    implementation: str,
) -> Float[Array, "tokens embed"]:
    """This device's part of the sum, of tokens that are here."""
    experts, ids, probabilities = weights.up.shape[0], routing.ids, routing.probabilities
    if layout.owners:
        ids = ids - experts * jax.lax.axis_index(axis_of(layout.owners))
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
