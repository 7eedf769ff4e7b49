"""Every device of an expert group gets all tokens of the group, and computes its own experts' part.

Exact for every routing, and the cheaper way for few devices or many experts a token.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mjx.kernels.grouped_matmul.fused import grouped_sum
from mjx.models.common.moe.experts import OneExpert, Weights
from mjx.models.common.moe.layout import Layout, axis_of
from mjx.models.common.moe.permutation import sort_choices


def gather(
    layout: Layout,
    expert: OneExpert,
    tokens: Float[Array, "tokens embed"],
    ids: Int[Array, "tokens top_k"],
    probabilities: Float[Array, "tokens top_k"],
    weights: Weights,
) -> Float[Array, "tokens embed"]:
    """The sum of every token over its experts; `weights` are this device's."""
    group = set(layout.owners) | set(layout.hidden)
    split = layout.ordered(group & set(layout.token_axes))
    whole = layout.ordered(group - set(layout.token_axes))
    if split:
        tokens, ids, probabilities = (
            jax.lax.all_gather(array, axis_of(split), tiled=True) for array in (tokens, ids, probabilities)
        )
    y = own_experts(layout, expert, tokens, ids, probabilities, weights)
    if split:
        y = jax.lax.psum_scatter(y, axis_of(split), scatter_dimension=0, tiled=True)
    return jax.lax.psum(y, axis_of(whole)) if whole else y


def own_experts(
    layout: Layout,
    expert: OneExpert,
    tokens: Float[Array, "tokens embed"],
    ids: Int[Array, "tokens top_k"],
    probabilities: Float[Array, "tokens top_k"],
    weights: Weights,
) -> Float[Array, "tokens embed"]:
    """This device's part of the sum, of tokens that are here."""
    experts = weights.up.shape[0]
    if layout.owners:
        ids = ids - experts * jax.lax.axis_index(axis_of(layout.owners))
    ids = jnp.where((ids >= 0) & (ids < experts), ids, experts)
    chosen = sort_choices(ids, experts)
    factors = probabilities.reshape(-1)[chosen.order]
    return grouped_sum(expert, tokens, factors, weights, chosen.order // ids.shape[1], chosen.sizes)
