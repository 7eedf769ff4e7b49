"""Programs whose collectives are known send, as counted, the bytes of the ring formulas to the byte."""

import functools
import inspect
import itertools
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mjx.errors import InputError
from mjx.gpus.target import specification
from mjx.gpus.toolkit import toolkit
from mjx.plan.program.collectives import bytes_by_reach, collectives
from mjx.plan.program.hlo import parse_program

NODES, BOTH = P("node"), P(("node", "gpu"))
ROWS, COLUMNS = 128, 16
"""Of the block that each device has."""
ITEM = {"float32": 4, "bfloat16": 2, "int32": 4}
SHORT = {"float32": "f32", "bfloat16": "bf16", "int32": "s32"}
TARGETS = ["cpu", "partitioned", pytest.param("gpu", marks=pytest.mark.gpu_compile)]
"""What XLA's CPU compiler makes, what it has after partitioning, what its GPU compiler makes for 64 H100s."""


@functools.cache
def mesh_of(target):
    if target != "gpu":
        return jax.make_mesh((2, 4), ("node", "gpu"), axis_types=(AxisType.Auto,) * 2)
    try:
        toolkit()
    except InputError as error:
        pytest.skip(str(error))
    topology = topologies.get_topology_desc(
        platform="cuda", topology_name="", target_config=specification("h100"), topology="8x1x8"
    )
    return Mesh(np.array(topology.devices).reshape(8, 8), ("node", "gpu"))


def text_of(target, function, *shapes, **options):
    lowered = jax.jit(function, **options).trace(*shapes)
    if target == "gpu":
        data = {"xla_gpu_cuda_data_dir": str(toolkit().root)}
        return lowered.lower(lowering_platforms=("cuda",)).compile(compiler_options=data).as_text()
    if target == "cpu":
        return lowered.lower().compile().as_text()
    with tempfile.TemporaryDirectory() as folder:
        dump = {"xla_dump_to": folder, "xla_dump_hlo_pass_re": "spmd-partitioning"}
        lowered.lower().compile(compiler_options=dump)
        (file,) = Path(folder).glob("*after_spmd-partitioning*")
        return file.read_text()


def found_in(target, text):
    shape = dict(mesh_of(target).shape)
    return collectives(parse_program(text), shape, devices_per_node=shape["gpu"])


def of_blocks(target, function, out=BOTH, dtype="float32"):
    """The collectives of a function of each device's block."""
    mesh = mesh_of(target)
    mapped = jax.shard_map(function, mesh=mesh, in_specs=BOTH, out_specs=out, check_vma=False)
    blocks = (ROWS * mesh.size, COLUMNS)
    shape = jax.ShapeDtypeStruct(blocks, dtype, sharding=NamedSharding(mesh, BOTH))
    return found_in(target, text_of(target, mapped, shape))


def sizes(target):
    """Nodes and GPUs of each, and the bytes of a block of float32."""
    return *mesh_of(target).shape.values(), ROWS * COLUMNS * 4


def ring(axes):
    """Pairs from every device to the next, the last to the first."""
    size = lax.axis_size(axes)
    return [(i, (i + 1) % size) for i in range(size)]


# Kind, the program, the bytes that a device of n sends by a ring when its block is given.
KINDS = {
    "psum": ("all-reduce", lambda x, axes: lax.psum(x, axes), lambda n, block: 2 * block * (n - 1) / n),
    "psum_scatter": (
        "reduce-scatter",
        lambda x, axes: lax.psum_scatter(x, axes, tiled=True),
        lambda n, block: block * (n - 1) / n,
    ),
    "all_gather": (
        "all-gather",
        lambda x, axes: lax.all_gather(x, axes, tiled=True),
        lambda n, block: (n * block) * (n - 1) / n,
    ),
    "all_to_all": (
        "all-to-all",
        lambda x, axes: lax.all_to_all(x, axes, 0, 0, tiled=True),
        lambda n, block: block * (n - 1) / n,
    ),
    "ppermute": (
        "collective-permute",
        lambda x, axes: lax.ppermute(x, axes, ring(axes)),
        lambda n, block: block,
    ),
    "pbroadcast": (
        "collective-broadcast",
        lambda x, axes: lax.pbroadcast(x, axes, 1),
        lambda n, block: block,
    ),
}


GPU = TARGETS[-1]
KIND_TARGETS = [
    pytest.param(name, dtype, getattr(target, "values", (target,))[0], marks=getattr(target, "marks", ()))
    for name, dtype, target in itertools.product(KINDS, ["float32", "bfloat16", "int32"], TARGETS)
    # JAX has no pbroadcast on CPUs, and XLA's CPU compiler sends bfloat16 as float32.
    if (name != "pbroadcast" or target is GPU) and (dtype != "bfloat16" or target != "cpu")
]


@pytest.mark.parametrize("axes", [("gpu",), ("node",), ("node", "gpu")], ids="-".join)
@pytest.mark.parametrize(("name", "dtype", "target"), KIND_TARGETS)
def test_a_collective_sends_what_its_ring_sends(name, axes, dtype, target):
    kind, function, sent = KINDS[name]
    (found,) = of_blocks(target, lambda x: function(x, axes), dtype=dtype)
    n = int(np.prod([mesh_of(target).shape[axis] for axis in axes]))
    assert (found.kind, found.axes, found.count, found.exact) == (kind, axes, 1, True)
    assert found.reach == ("node" if axes == ("gpu",) else "network")
    assert {array.dtype for array in found.arrays} == {SHORT[dtype]}
    assert found.wire_bytes == sent(n, ROWS * COLUMNS * ITEM[dtype])
    assert found.group_size == (2 if kind == "collective-permute" else n)
    if target != "gpu" or kind != "all-reduce":  # XLA may start a small sum, and wait for it at once
        assert not found.asynchronous
    assert found.origin.part == "update"
    assert found.origin.code.startswith("test_collectives.py:")


@pytest.mark.parametrize("target", TARGETS)
def test_the_bytes_in_figures(target):
    """A block is 8 KiB: 2 nodes of 4 on the CPU, 8 nodes of 8 for GPUs."""
    gathered = of_blocks(target, lambda x: lax.all_gather(x, "gpu", tiled=True))
    summed = of_blocks(target, lambda x: lax.psum(x, "node"))
    node, network = (7 * 8192, 14336) if target == "gpu" else (3 * 8192, 8192)
    assert bytes_by_reach(gathered + summed) == {"node": node, "network": network}
    assert bytes_by_reach([]) == {"node": 0, "network": 0}


def halved(x, axis):
    return lax.psum(x, axis) * 0.5


def scan_in_scan(x):
    def outer(carry, _):
        return lax.scan(lambda c, _: (halved(c, "gpu"), None), carry, None, length=3)[0], None

    return lax.scan(outer, x, None, length=5)[0]


def scan_after_scan(x):
    x, _ = lax.scan(lambda c, _: (halved(c, "gpu"), None), x, None, length=3)
    return lax.scan(lambda c, _: (halved(c, "gpu"), None), x, None, length=4)[0]


LOOPS = {
    "scan in scan": (scan_in_scan, [15]),
    "scan after scan": (scan_after_scan, [3, 4]),
    "fori_loop": (lambda x: lax.fori_loop(2, 9, lambda _, x: halved(x, "gpu"), x), [7]),
    "while_loop": (
        lambda x: lax.while_loop(lambda c: c[0] < 10, lambda c: (c[0] + 2, halved(c[1], "gpu")), (3, x))[1],
        [4],  # 3, 5, 7, 9
    ),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", LOOPS)
def test_a_collective_in_a_loop_counts_as_often_as_it_turns(name, target):
    function, turns = LOOPS[name]
    _, n, block = sizes(target)
    found = of_blocks(target, function)
    assert [(each.count, each.exact) for each in found] == [(times, True) for times in turns]
    assert [each.wire_bytes for each in found] == [times * 2 * block * (n - 1) / n for times in turns]
    assert {each.origin.code for each in found} == {
        f"test_collectives.py:{inspect.getsourcelines(halved)[1] + 1} halved"
    }


@pytest.mark.parametrize("target", TARGETS)
def test_a_loop_that_the_data_end_counts_once_and_says_so(target):
    def condition(x):
        return lax.psum(x[0, 0], "node") > 0

    found = of_blocks(target, lambda x: lax.while_loop(condition, lambda x: halved(x, "gpu") - 1, x))
    nodes, gpus, block = sizes(target)
    asked, turned = (next(each for each in found if each.axes == (axis,)) for axis in ("node", "gpu"))
    assert len(found) == 2
    assert (asked.exact, asked.count, asked.wire_bytes) == (False, 2, 2 * 2 * 4 * (nodes - 1) / nodes)
    assert (turned.exact, turned.count, turned.wire_bytes) == (False, 1, 2 * block * (gpus - 1) / gpus)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("turned", [False, True])
def test_of_two_branches_the_heavier_one_counts(turned, target):
    def light(x):
        return lax.psum(x, "gpu")

    def heavy(x):
        return lax.all_gather(x, "node", tiled=True)[:ROWS] + lax.psum(x, "gpu")

    branches = (heavy, light) if turned else (light, heavy)

    def looped(x):
        return lax.fori_loop(0, 3, lambda _, x: lax.cond(x[0, 0] > 0, *branches, x), x)

    nodes, gpus, block = sizes(target)
    found = of_blocks(target, looped)
    assert {(each.kind, each.count): each.wire_bytes for each in found} == {
        ("all-gather", 3): 3 * block * (nodes - 1),
        ("all-reduce", 3): 3 * 2 * block * (gpus - 1) / gpus,
    }
    assert len(found) == 2


@pytest.mark.parametrize("target", TARGETS)
def test_collectives_together_send_the_sum_whether_or_not_they_are_combined(target):
    found = of_blocks(target, lambda x: (lax.psum(x, "gpu"), lax.psum(x[:32] * 2, "gpu")), out=(BOTH, BOTH))
    _, n, block = sizes(target)
    assert bytes_by_reach(found) == {"node": 2 * (block + block / 4) * (n - 1) / n, "network": 0}
    assert sum(np.prod(array.shape) for each in found for array in each.arrays) == (ROWS + 32) * COLUMNS


@pytest.mark.parametrize("target", TARGETS)
def test_in_a_chain_of_stages_whoever_sends_sends_all(target):
    def forth(x):
        return lax.ppermute(x, "node", ring("node")[:-1])

    (found,) = of_blocks(target, forth)
    assert (found.axes, found.reach, found.wire_bytes) == (("node",), "network", ROWS * COLUMNS * 4)


@pytest.mark.gpu_compile
def test_a_ragged_all_to_all_sends_its_rows_and_not_the_array_that_it_fills():
    def ragged(x):
        size = lax.axis_size("gpu")
        each = jnp.full((size,), ROWS // size, "int32")
        at = jnp.arange(size, dtype="int32") * (ROWS // size)
        return lax.ragged_all_to_all(x, jnp.zeros_like(x), at, each, at, each, axis_name="gpu")

    (found,) = of_blocks("gpu", ragged)
    assert (found.kind, found.group_size, found.axes) == ("ragged-all-to-all", 8, ("gpu",))
    assert list(map(str, found.arrays)) == [f"f32[{ROWS},{COLUMNS}]"]
    assert found.wire_bytes == ROWS * COLUMNS * 4 * 7 / 8


@pytest.mark.gpu_compile
def test_a_ragged_all_to_all_out_of_a_larger_array_sends_what_there_is_room_for():
    def ragged(x):
        size = lax.axis_size("gpu")
        each = jnp.full((size,), ROWS // (2 * size), "int32")
        at = jnp.arange(size, dtype="int32") * (ROWS // (2 * size))
        return lax.ragged_all_to_all(x, jnp.zeros_like(x[::2]), at, each, at, each, axis_name="gpu")

    (found,) = of_blocks("gpu", ragged)
    assert found.wire_bytes == ROWS / 2 * COLUMNS * 4 * 7 / 8


@pytest.mark.gpu_compile
def test_a_partitioned_product_scatters_its_sum_over_the_node():
    mesh = mesh_of("gpu")

    def spread(shape, *spec):
        return jax.ShapeDtypeStruct(shape, "bfloat16", sharding=NamedSharding(mesh, P(*spec)))

    rows, weight = spread((1024, 4096), "node", "gpu"), spread((4096, 2048), "gpu", None)
    out = NamedSharding(mesh, P("node", "gpu"))
    text = text_of("gpu", jnp.dot, rows, weight, out_shardings=out)
    (found,) = found_in("gpu", text)
    assert (found.kind, found.axes, found.reach) == ("reduce-scatter", ("gpu",), "node")
    assert found.wire_bytes == (1024 / 8) * 2048 * 2 * 7 / 8


@pytest.mark.parametrize("target", TARGETS)
def test_what_has_something_to_compute_meanwhile_is_asynchronous_on_gpus_alone(target):
    def both(x):
        return lax.psum(x, "node"), lax.all_gather(x, "gpu", tiled=True), x @ x.T @ x

    found = of_blocks(target, both, out=(BOTH, NODES, BOTH))
    assert {each.kind for each in found} == {"all-reduce", "all-gather"}
    assert any(each.asynchronous for each in found) == (target == "gpu")


WRITTEN = """
HloModule written

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add = f32[] add(%a, %b)
}

%wrapped (p: bf16[8,4]) -> bf16[64,4] {
  %p = bf16[8,4]{1,0} parameter(0)
  ROOT %inside = bf16[64,4]{1,0} all-gather(%p), replica_groups=[1,8]<=[8], dimensions={0}
}

ENTRY %main (x: bf16[8,4], y: f32[16]) -> f32[16] {
  %x = bf16[8,4]{1,0} parameter(0)
  %y = f32[16]{0} parameter(1)
  %async-start = ((bf16[8,4]{1,0}), bf16[64,4]{1,0}, s32[]) async-start(%x), calls=%wrapped
  %async-done = bf16[64,4]{1,0} async-done(%async-start)
  %two-start = (f32[16]{0}, bf16[8,4]{1,0}) all-reduce-start(%y, /*index=1*/%x), \
replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%sum, backend_config={"is_sync":true}
  %two-done = (f32[16]{0}, bf16[8,4]{1,0}) all-reduce-done(%two-start)
  %still = f32[16]{0} collective-permute(%y), source_target_pairs={{0,0},{1,1}}
  %none = f32[16]{0} collective-permute(%y), source_target_pairs={}
  %alone = f32[16]{0} all-reduce(%y), replica_groups=mesh['node'=2,'gpu'=4] {}, to_apply=%sum
  ROOT %odd = f32[16]{0} all-reduce(%y), replica_groups={{0,7},{1,6},{2,5},{3,4}}, to_apply=%sum
}
"""


def test_what_is_printed_in_other_ways_is_counted_as_well():
    found = found_in("cpu", WRITTEN)
    assert [(each.kind, each.wire_bytes, each.asynchronous) for each in found] == [
        ("all-gather", 8 * 4 * 2 * 7, True),
        ("all-reduce", 16 * 4 + 8 * 4 * 2, False),
        ("collective-permute", 0, False),
        ("collective-permute", 0, False),
        ("all-reduce", 0, False),
        ("all-reduce", 16 * 4, False),
    ]
    assert [each.group_size for each in found if each.kind != "collective-permute"] == [8, 2, 1, 2]


def test_groups_that_are_no_product_of_axes_name_none():
    """Halves of a node, no devices at all, and pairs across both axes."""
    axes = [each.axes for each in found_in("cpu", WRITTEN)]
    assert axes == [("node", "gpu"), (), (), (), (), ()]
    reaches = [each.reach for each in found_in("cpu", WRITTEN)]
    assert reaches == ["network", "node", "node", "node", "node", "network"]
