"""cuDNN's fused attention, through `jax.nn.dot_product_attention`."""

import jax
from jaxtyping import Array, Float


def attention(
    q: Float[Array, "batch query heads head_dim"],
    k: Float[Array, "batch key kv_heads head_dim"],
    v: Float[Array, "batch key kv_heads head_dim"],
    *,
    scale: float,
    causal: bool,
    window: int | None,
    **without,
) -> tuple[Float[Array, "batch query heads head_dim"], None]:
    """As `reference.attention`, without the log-sum-exp.

    `without`: the options that the table of implementations says it cannot do, at their defaults.
    """
    # Its windows do not count the token itself. Its causal mask begins at the first key, as ours does.
    left = None if window is None else (window - 1, 0)
    out = jax.nn.dot_product_attention(
        q, k, v, scale=scale, is_causal=causal, local_window_size=left, implementation="cudnn"
    )
    return out, None
