import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from mjx.errors import InputError
from mjx.sharding import MESH_AXES, MeshConfig, build_mesh, relayout, shard, use_mesh


@dataclasses.dataclass(frozen=True)
class Device:
    """As much of a jax.Device as ordering looks at."""

    id: int
    process_index: int


def test_minus_one_takes_what_is_left():
    assert MeshConfig(data=-1, tensor=4).resolve(8)["data"] == 2


@pytest.mark.parametrize("mesh", [{"data": 3}, {"data": -1, "tensor": 3}, {"data": 2, "tensor": 2}])
def test_a_mesh_that_does_not_fit_shows_the_sum(mesh):
    with pytest.raises(InputError, match=r"the mesh does not fit: .* and 8 are here"):
        MeshConfig(**mesh).resolve(8)


def test_only_one_axis_may_be_free():
    with pytest.raises(InputError, match=r"mesh.data and mesh.tensor"):
        MeshConfig(data=-1, tensor=-1)


@pytest.mark.parametrize("size", [0, -2])
def test_sizes_are_positive(size):
    with pytest.raises(InputError, match=rf"mesh.tensor = {size}"):
        MeshConfig(tensor=size)


def test_all_axes_are_there_and_auto():
    mesh = build_mesh(MeshConfig(data=2, tensor=4))
    assert mesh.axis_names == MESH_AXES
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert dict(mesh.shape)["tensor"] == 4


def test_a_tensor_group_stays_inside_a_node(monkeypatch):
    devices = [Device(id, process) for process in range(4) for id in range(100 * process, 100 * process + 8)]
    np.random.RandomState(0).shuffle(devices)  # type: ignore[arg-type]
    grids = []
    monkeypatch.setattr("mjx.sharding.mesh.Mesh", lambda grid, *_, **__: grids.append(grid))
    build_mesh(MeshConfig(data=-1, tensor=8), devices)  # type: ignore[arg-type]
    groups = grids[0].reshape(-1, 8)
    assert all(len({device.process_index for device in group}) == 1 for group in groups)
    with pytest.raises(InputError, match=r"mesh.tensor = 16.*|mesh.tensor = 3"):
        build_mesh(MeshConfig(data=1, fsdp=-1, tensor=3), devices[:24])  # type: ignore[arg-type]


def test_shard_lays_an_activation_out_inside_jit():
    with use_mesh(build_mesh(MeshConfig(data=2, tensor=4))):
        y = jax.jit(lambda x: shard(x * 1, "batch", "sequence", "mlp"))(jnp.ones((4, 3, 8)))
    assert y.sharding.spec == jax.P("data", None, "tensor")


def test_without_a_mesh_shard_is_the_identity():
    x = jnp.ones((3, 5))
    assert shard(x, "batch", "mlp") is x


def test_relayout_sends_the_gradient_back_to_the_source():
    source, target = ("batch", "residual_sequence", "embed"), ("batch", "sequence", "embed")
    x = jnp.ones((2, 8, 4))
    with use_mesh(build_mesh(MeshConfig(data=2, tensor=4))):
        gradient = jax.jit(jax.grad(lambda x: (relayout(x, source, target) ** 2).sum()))(x)
    assert gradient.sharding.spec == jax.P("data", "tensor")
    np.testing.assert_array_equal(gradient, 2 * x)
