"""cuDNN's fused attention, through `jax.nn.dot_product_attention`."""

import jax
from jaxtyping import Array, Float

from mjx.kernels.flash_attention.options import AttentionOptions


def attention(
    q: Float[Array, "batch query heads head_dim"],
    k: Float[Array, "batch key kv_heads head_dim"],
    v: Float[Array, "batch key kv_heads head_dim"],
    options: AttentionOptions,
) -> tuple[Float[Array, "batch query heads head_dim"], None]:
    """As `reference.attention`, without the log-sum-exp."""
    # Its windows do not count the token itself. Its causal mask begins at the first key, as ours does.
    left = None if options.window is None else (options.window - 1, 0)
    out = jax.nn.dot_product_attention(
        q,
        k,
        v,
        scale=options.scale,
        is_causal=options.causal,
        local_window_size=left,
        implementation="cudnn",
    )
    return out, None
