"""What each implementation of grouped matmul can do."""

from mjx.kernels.capability import Capability

FEATURES: dict[str, str] = {}
"""None that some implementation lacks: all have both gradients, empty groups, and rows of no group."""

_EVERYWHERE = ("cpu", "gpu", "tpu")
_DTYPES = ("float32", "bfloat16", "float16", "float64")

IMPLEMENTATIONS = {
    "triton": Capability(
        platforms=("gpu",),
        dtypes=("float32", "bfloat16", "float16"),
        features=frozenset(FEATURES),
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
