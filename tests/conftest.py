"""All tests see eight simulated CPU devices, and no GPU."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)

TESTS = Path(__file__).parent
OPTIMIZED = ("plan", "end_to_end", "models/gpt", "models/huggingface", "test_parity.py")
"""What looks at programs as they are compiled for users, runs whole commands, or is held to other libraries'
numbers."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Compiled in a hurry: without the optimizations of LLVM, which take more than half of a test's time."""
    path = item.path.relative_to(TESTS)
    for_gpus = item.get_closest_marker("gpu_compile") is not None
    optimized = for_gpus or any(path.is_relative_to(each) for each in OPTIMIZED)
    jax.config.update("jax_disable_most_optimizations", not optimized)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of SmolLM2-135M-Instruct, a real model."""
    if "MJX_SMOLLM2" not in os.environ:
        pytest.skip("MJX_SMOLLM2 names no folder (examples/smollm2.md makes one)")
    return Path(os.environ["MJX_SMOLLM2"])
