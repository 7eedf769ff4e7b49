"""What each implementation of state-space duality can do."""

from mjx.kernels.capability import Capability, Sizes
from mjx.kernels.ssd.configurations import LARGEST_HEAD_DIM, LARGEST_STATE

FEATURES = {
    "groups": "heads that share B and C",
    "skip": "D, for each head",
    "skip per channel": "D, for each feature of each head",
    "gate": "z",
    "bias": "on dt",
    "softplus": "of dt",
    "initial state": "with its gradient",
    "final state": "returned, with its gradient",
    "segments": "segment ids: packed documents, padding",
}
"""Feature → what it means. All implementations have all of them, and every gradient."""

_EVERYWHERE = ("cpu", "gpu", "tpu")
_DTYPES = ("float32", "bfloat16", "float16", "float64")

IMPLEMENTATIONS = {
    "pallas_triton": Capability(
        platforms=("gpu",),
        dtypes=("float32", "bfloat16", "float16"),
        features=frozenset(FEATURES),
        sizes={"head_dim": Sizes(at_most=LARGEST_HEAD_DIM), "state": Sizes(at_most=LARGEST_STATE)},
        per_device=True,
        compute_capability=8.0,
        # Compiled for H100 and A100 and checked in interpret mode; not chosen before it has run on a GPU.
        automatic=(),
    ),
    "xla": Capability(
        platforms=_EVERYWHERE, dtypes=_DTYPES, features=frozenset(FEATURES), automatic=_EVERYWHERE
    ),
    "reference": Capability(platforms=_EVERYWHERE, dtypes=_DTYPES, features=frozenset(FEATURES)),
}
"""In the order in which `auto` tries them."""
