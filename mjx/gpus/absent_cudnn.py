"""Lowering cuDNN's attention where there is no cuDNN and no GPU."""

import contextlib
from collections.abc import Iterator
from unittest import mock

from jax._src.cudnn import fused_attention_stablehlo as attention

VERSION = 91000
"""9.10, as specifications of GPUs say."""


@contextlib.contextmanager
def cudnn_of(compute_capability: float) -> Iterator[None]:
    """Within it JAX lowers cuDNN's attention for a GPU that is not here, without cuDNN.

    JAX asks the library and the GPU at hand for their versions. What is compiled is a call; its plan is made
    by the cuDNN of the machine that runs it.
    """

    def reached(wanted: str) -> bool:
        return float(wanted) <= compute_capability

    with (
        mock.patch.object(attention, "check_cudnn_version", return_value=VERSION),
        mock.patch.object(attention, "check_compute_capability", reached),
    ):
        yield
