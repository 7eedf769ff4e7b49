"""What the tests of all kernels look into."""

import itertools

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
