"""Projections by their names, and the parameters below a name."""

import numpy as np

Parameters = dict[str, np.ndarray]
"""Path → value."""


def below(p: Parameters, name: str) -> Parameters:
    """The parameters whose paths begin with `name.`, without that."""
    return {path.removeprefix(f"{name}."): value for path, value in p.items() if path.startswith(f"{name}.")}


def linear(p: Parameters, name: str, subscripts: str, x: np.ndarray) -> np.ndarray:
    """`subscripts` are einsum's, of the input and the kernel."""
    y = np.einsum(subscripts, x.astype(np.float64), p[f"{name}.kernel"])
    return y + p.get(f"{name}.bias", np.float64(0))
