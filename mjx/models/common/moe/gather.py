"""Every device of an expert group gets all tokens of the group, and computes its own experts' part.

Exact for every routing, and the cheaper way for few devices or many experts a token.
"""

import jax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from mjx.models.common.moe.experts import KEPT, OneExpert, Weights
from mjx.models.common.moe.layout import Layout, axis_of
from mjx.models.common.moe.own_experts import own_experts
from mjx.models.common.moe.router import Routing
from mjx.models.common.pattern import exchanging


@exchanging("experts")
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
    if layout.owners:
        first = weights.up.shape[0] * jax.lax.axis_index(axis_of(layout.owners))
        routing = Routing(routing.ids - first, routing.probabilities)
    y = own_experts(expert, tokens, routing, weights, implementation)
    if split:
        y = jax.lax.psum_scatter(y, axis_of(split), scatter_dimension=0, tiled=True)
    return jax.lax.psum(y, axis_of(whole)) if whole else y
