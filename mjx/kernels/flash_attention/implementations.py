"""What each implementation of attention can do."""

from mjx.kernels.capability import Capability, Sizes

FEATURES = {
    "gqa": "fewer key/value heads than query heads",
    "window": "sliding window of a causal row",
    "two-sided window": "window without causality",
    "segments": "segment ids: packed documents, padding",
    "soft-cap": "scores bounded by tanh",
    "sinks": "a learned score per head that no key has",
    "relative bias": "a learned bias on scores by the distance of key and query",
    "offsets": "queries and keys that begin at different positions, or queries beyond the last key",
    "offset per row": "offsets that differ between the rows, or are known only at run time",
    "log-sum-exp": "returned, with its gradient",
    "dropout": "on the probabilities",
    "value_dim": "values of another size than keys",
}
"""Feature → what it means. Causal and full attention, and every gradient, are no features: all have them."""

_EVERYWHERE = ("cpu", "gpu", "tpu")

IMPLEMENTATIONS = {
    "cudnn": Capability(
        platforms=("gpu",),
        dtypes=("bfloat16", "float16"),
        # jax.nn.dot_product_attention returns the log-sum-exp in the inputs' dtype and drops its gradient.
        features=frozenset({"gqa", "window"}),
        sizes={
            "head_dim": Sizes(multiple_of=8, at_most=256, before=(9.0, 128)),
            "queries": Sizes(multiple_of=2),  # JAX asks for it where the backward pass is there too
            "keys": Sizes(multiple_of=2),
        },
        compute_capability=8.0,
        per_device=True,
        automatic=("gpu",),
    ),
    "pallas_triton": Capability(
        platforms=("gpu",),
        dtypes=("float32", "bfloat16", "float16"),
        features=frozenset(FEATURES) - {"dropout", "relative bias"},
        sizes={"head_dim": Sizes(at_most=256)},
        compute_capability=8.0,
        per_device=True,
        # Compiled for H100 and checked in interpret mode; not chosen before it has run on a GPU.
        automatic=(),
    ),
    "mosaic": Capability(
        platforms=("gpu",),
        dtypes=("bfloat16", "float16"),
        # Windows and soft-caps are there, and right when interpreted, but spill registers at head_dim 128.
        features=frozenset({"gqa", "sinks", "offsets", "log-sum-exp"}),
        sizes={"head_dim": Sizes(multiple_of=64, at_most=128)},
        compute_capability=9.0,
        newest_compute_capability=9.0,  # wgmma is gone from the generation after
        per_device=True,
        # Compiled for H100 and checked in interpret mode; not chosen before it has run on a GPU.
        automatic=(),
    ),
    "xla": Capability(
        platforms=_EVERYWHERE,
        dtypes=("float32", "bfloat16", "float16", "float64"),
        features=frozenset(FEATURES),
        automatic=_EVERYWHERE,
    ),
    "reference": Capability(
        platforms=_EVERYWHERE,
        dtypes=("float32", "bfloat16", "float16", "float64"),
        features=frozenset(FEATURES),
    ),
}
"""In the order in which `auto` tries them."""
