"""What the tests of all kernels look into."""

import itertools
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from jaxlib.mlir import ir
from jaxlib.triton import dialect


@pytest.fixture(scope="session")
def triton_programs():
    """A function of a lowered program: the Triton IR of each of its kernels."""

    def programs(lowered) -> list[str]:
        found: list[str] = []

        def visit(operation):
            attributes = operation.attributes
            if operation.name == "stablehlo.custom_call" and "triton" in str(attributes["call_target_name"]):
                with ir.Context() as context:
                    dialect.register_dialect(context)
                    found.append(str(ir.Module.parse(attributes["mhlo.backend_config"]["ir"].value_bytes)))
            blocks = (block for region in operation.regions for block in region.blocks)
            for inner in itertools.chain.from_iterable(blocks):
                visit(inner.operation)

        visit(lowered.compiler_ir().operation)
        return found

    return programs


@pytest.fixture(scope="session")
def in_triton_s_interpreter(tmp_path_factory):
    """A function of a driver and its cases: what a process of its own makes of them, given Triton."""

    def run(driver: Path, cases: dict) -> dict:
        pytest.importorskip("triton")
        folder = tmp_path_factory.mktemp("interpreter")
        (folder / "cases").write_bytes(pickle.dumps(cases))
        here = Path(__file__).parent
        path = os.pathsep.join(map(str, (here.parents[1], here)))
        command = [sys.executable, driver, folder / "cases", folder / "results"]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path})
        return pickle.loads((folder / "results").read_bytes())

    return run
