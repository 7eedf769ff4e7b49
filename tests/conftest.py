"""All tests see eight simulated CPU devices, and no GPU."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest
from hurry import compile_in_a_hurry

jax.config.update("jax_num_cpu_devices", 8)

TESTS = Path(__file__).parent
OPTIMIZED = ("plan", "end_to_end")
"""What looks at programs as they are compiled for users, or runs whole commands. Elsewhere a test that needs
it is marked `optimized`."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Compiled in a hurry: without the optimizations of LLVM, which take more than half of a test's time."""
    path = item.path.relative_to(TESTS)
    marked = any(item.get_closest_marker(name) for name in ("gpu_compile", "optimized"))
    optimized = marked or any(path.is_relative_to(each) for each in OPTIMIZED)
    compile_in_a_hurry(not optimized)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of SmolLM2-135M-Instruct, a real model."""
    if "MJX_SMOLLM2" not in os.environ:
        pytest.skip("MJX_SMOLLM2 names no folder (examples/smollm2.md makes one)")
    return Path(os.environ["MJX_SMOLLM2"])
