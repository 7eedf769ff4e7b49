"""What is read of machine code is what the kernel was written to have."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.experimental import topologies
from jax.experimental.pallas import triton
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mjx.errors import InputError
from mjx.gpus import toolkit as toolkits
from mjx.gpus.data_sheet import data_sheet, sheet_name
from mjx.gpus.target import device_kind, gpu_names, lowering_for, specification
from mjx.kernels.capability import current_device
from mjx.plan.kernels.lowered import lower
from mjx.plan.kernels.machine_code import assemble, compile_kernels

PTX = """
.version 8.0
.target sm_80
.address_size 64
.visible .entry copy(.param .u64 from, .param .u64 to)
.reqntid 64, 1, 1
{
    .reg .b32 %r<2>;
    .reg .b64 %rd<5>;
    .shared .align 4 .b8 kept[512];
    ld.param.u64 %rd1, [from];
    ld.param.u64 %rd2, [to];
    cvta.to.global.u64 %rd3, %rd1;
    cvta.to.global.u64 %rd4, %rd2;
    ld.global.u32 %r1, [%rd3];
    st.shared.u32 [kept], %r1;
    bar.sync 0;
    ld.shared.u32 %r1, [kept];
    st.global.u32 [%rd4], %r1;
    ret;
}
"""


@pytest.fixture(autouse=True)
def compiler():
    try:
        toolkits.toolkit()
    except InputError as error:
        pytest.skip(str(error))


def product(size, num_warps):
    def kernel(a, b, out):
        out[...] = jnp.dot(a[...], b[...], preferred_element_type=jnp.float32)

    shape = jax.ShapeDtypeStruct((size, size), "float32")
    parameters = triton.CompilerParams(num_warps=num_warps, num_stages=1)
    call = pl.pallas_call(kernel, out_shape=shape, compiler_params=parameters, name="product")
    return call, jax.ShapeDtypeStruct((size, size), "bfloat16")


@pytest.mark.gpu_compile
def test_an_assembled_program_has_its_threads_shared_memory_and_instructions():
    (kernel,) = assemble(PTX, "sm_80")
    assert (kernel.name, kernel.threads, kernel.shared_memory, kernel.spilled) == ("copy", 64, 512, 0)
    assert 0 < kernel.registers < 20
    assert kernel.instructions > 5
    assert not kernel.tensor_core


@pytest.mark.gpu_compile
@pytest.mark.parametrize(("gpu", "instruction"), [("h100", "HGMMA"), ("h200", "HGMMA"), ("a100", "HMMA")])
def test_a_product_runs_on_the_tensor_cores_of_its_gpu(gpu, instruction):
    call, shape = product(64, 4)
    (kernel,) = compile_kernels(lower(call, shape, shape, gpu=gpu))
    assert kernel.name == "product"
    assert kernel.threads == 128
    assert kernel.tensor_core.keys() == {instruction}
    assert kernel.shared_memory >= 2 * 64 * 64 * 2
    assert not kernel.spilled


@pytest.mark.gpu_compile
def test_a_block_that_is_too_large_for_its_registers_is_seen_to_spill():
    call, shape = product(256, 4)
    with pytest.raises(Exception, match=r"[Ss]hared memory size limit"):
        compile_kernels(lower(call, shape, shape, gpu="h100"))

    def held(a, b, out):
        out[...] = jnp.exp(a[...]) @ jnp.exp(b[...]) + jnp.exp(a[...])

    shape = jax.ShapeDtypeStruct((64, 64), "float32")
    parameters = triton.CompilerParams(num_warps=1, num_stages=1)
    call = pl.pallas_call(held, out_shape=shape, compiler_params=parameters, name="held")
    (kernel,) = compile_kernels(lower(call, shape, shape, gpu="h100"))
    assert kernel.spilled > 0


def test_a_machine_without_a_compiler_is_told_how_to_get_one(monkeypatch, tmp_path):
    toolkits.toolkit.cache_clear()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ptxas").touch()
    monkeypatch.setattr(toolkits, "_roots", lambda: [tmp_path])
    try:
        with pytest.raises(
            InputError, match=r"has no nvlink and no libdevice.10.bc and no nvdisasm: pip install"
        ):
            toolkits.toolkit()
        monkeypatch.setattr(toolkits, "_roots", lambda: [tmp_path / "nothing"])
        with pytest.raises(InputError, match=r"no CUDA compiler here: pip install 'mjx\[plan\]'"):
            toolkits.toolkit()
    finally:
        toolkits.toolkit.cache_clear()


@pytest.mark.parametrize("name", gpu_names())
def test_the_two_descriptions_of_a_gpu_agree(name):
    sheet, text = data_sheet(name), specification(name)
    assert f"core_count: {sheet.multiprocessors}\n" in text
    assert f"shared_memory_per_core: {sheet.shared_memory}\n" in text
    assert f"threads_per_core_limit: {sheet.threads}\n" in text
    assert f"device_memory_size: {sheet.memory}\n" in text
    major, minor = divmod(round(10 * sheet.compute_capability), 10)
    assert f"major: {major} minor: {minor} " in text
    assert sheet.memory_bandwidth == pytest.approx(
        float(re.search(r"memory_bandwidth: (\d+)", text)[1]), rel=1e-3
    )


@pytest.mark.parametrize("name", gpu_names())
def test_a_gpu_is_known_by_the_name_that_cuda_gives_it(name):
    assert sheet_name(device_kind(name)) == name
    with lowering_for(name):
        assert current_device() == ("gpu", data_sheet(name).compute_capability)


@pytest.mark.parametrize("kind", ["NVIDIA GB200", "NVIDIA GH200 480GB", "NVIDIA A10", "NVIDIA H100 PCIe"])
def test_a_gpu_with_another_s_name_inside_its_own_has_no_data_sheet(kind):
    assert sheet_name(kind) is None


@pytest.mark.gpu_compile
@pytest.mark.parametrize("name", gpu_names())
def test_a_program_of_two_nodes_compiles_for_every_gpu(name):
    topology = topologies.get_topology_desc(
        platform="cuda", topology_name="", target_config=specification(name), topology="2x1x8"
    )
    mesh = Mesh(np.array(topology.devices), ("shard",))
    rows = NamedSharding(mesh, P("shard"))
    matrix = jax.ShapeDtypeStruct((1024, 1024), "bfloat16", sharding=rows)
    lowered = jax.jit(jnp.dot, out_shardings=rows).trace(matrix, matrix).lower(lowering_platforms=("cuda",))
    compiled = lowered.compile(compiler_options={"xla_gpu_cuda_data_dir": str(toolkits.toolkit().root)})
    assert mesh.size == 2 * data_sheet(name).gpus_per_node
    assert [device.process_index for device in topology.devices] == [0] * 8 + [1] * 8
    assert {device.device_kind for device in topology.devices} == {device_kind(name)}
    assert "all-gather" in compiled.as_text()
    assert compiled.memory_analysis().argument_size_in_bytes == 2 * 2 * 1024**2 / mesh.size


def test_a_gpu_that_is_not_known_is_refused_with_those_that_are():
    with pytest.raises(
        InputError, match=r"gpu = 'h1000' is not known \(choose from a100, b200, h100, h200\)"
    ):
        data_sheet("h1000")


@pytest.mark.parametrize(
    ("threads", "registers", "shared_memory", "blocks"),
    [
        (128, 168, 0, 3),  # CUDA's occupancy calculator, compute capability 9.0
        (256, 128, 0, 2),
        (256, 255, 0, 1),
        (128, 32, 0, 16),
        (32, 16, 0, 32),
        (128, 32, 100 * 1024, 2),
        (128, 32, 227 * 1024, 1),
        (128, 32, 228 * 1024, 0),
        (1024, 65, 0, 0),
    ],
)
def test_resident_blocks_are_those_of_cuda_s_occupancy_calculator(threads, registers, shared_memory, blocks):
    sheet = data_sheet("h100")
    found = sheet.resident_blocks(threads=threads, registers=registers, shared_memory=shared_memory)
    assert found == blocks
