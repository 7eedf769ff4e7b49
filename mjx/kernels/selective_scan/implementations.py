"""What each implementation of the selective scan can do."""

from mjx.kernels.capability import Capability, Sizes

FEATURES = {
    "skip": "D",
    "gate": "z",
    "bias": "on delta",
    "softplus": "of delta",
    "initial state": "with its gradient",
    "final state": "returned, with its gradient",
    "segments": "segment ids: packed documents, padding",
}
"""Feature → what it means. All implementations have all of them, and every gradient."""

_EVERYWHERE = ("cpu", "gpu", "tpu")
_DTYPES = ("float32", "bfloat16", "float16", "float64")

IMPLEMENTATIONS = {
    "triton": Capability(
        platforms=("gpu",),
        dtypes=("float32", "bfloat16", "float16"),
        features=frozenset(FEATURES),
        sizes={"state": Sizes(at_most=256)},
        per_device=True,
        compute_capability=8.0,
        # Compiled for H100 and A100, checked in Triton's interpreter; not chosen before it has run on a GPU.
        automatic=(),
    ),
    "xla": Capability(
        platforms=_EVERYWHERE, dtypes=_DTYPES, features=frozenset(FEATURES), automatic=_EVERYWHERE
    ),
    "reference": Capability(platforms=_EVERYWHERE, dtypes=_DTYPES, features=frozenset(FEATURES)),
}
"""In the order in which `auto` tries them."""
