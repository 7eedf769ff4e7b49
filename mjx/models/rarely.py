"""A mark on code that is there for rare cases."""

RARELY = "rarely"
"""The name of a `jax.named_scope`: a branch with it in the names of its operations is left out of plans."""
