"""All tests see eight simulated CPU devices, and no GPU."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of SmolLM2-135M-Instruct, a real model."""
    if "MJX_SMOLLM2" not in os.environ:
        pytest.skip("MJX_SMOLLM2 names no folder (examples/smollm2.md makes one)")
    return Path(os.environ["MJX_SMOLLM2"])
