"""What each implementation of state-space duality can do."""

from mjx.kernels.capability import Capability

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
    "xla": Capability(
        platforms=_EVERYWHERE, dtypes=_DTYPES, features=frozenset(FEATURES), automatic=_EVERYWHERE
    ),
    "reference": Capability(platforms=_EVERYWHERE, dtypes=_DTYPES, features=frozenset(FEATURES)),
}
"""In the order in which `auto` tries them."""
