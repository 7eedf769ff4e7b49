"""All tests see eight simulated CPU devices, and no GPU."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # What is compiled once serves all processes of these tests, and none after them.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="mjx-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax
import pytest
from hurry import compile_in_a_hurry

compile_in_a_hurry(True)  # before XLA reads its flags

jax.config.update("jax_num_cpu_devices", 8)

TESTS = Path(__file__).parent
OPTIMIZED = ("plan",)
"""What looks at programs as they are compiled for users. Elsewhere a test that needs it is marked
`optimized`."""


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


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2, a real encoder of sentences."""
    if "MJX_MINILM" not in os.environ:
        pytest.skip("MJX_MINILM names no folder (docs/huggingface.md says where one is)")
    return Path(os.environ["MJX_MINILM"])


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A folder of all pytest processes of this session."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder
