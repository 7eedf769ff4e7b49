"""Building the mesh: sizes of the mesh axes, and which device stands where."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from mjx.errors import InputError
from mjx.sharding.axes import MESH_AXES

Devices = Sequence[jax.Device]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Sizes of the mesh axes; one may be -1, which takes the devices that are left."""

    data: int = -1
    """Copies of the model, each with its own share of the batch."""
    fsdp: int = 1
    """Shares of the batch whose parameters and optimizer state are split too (ZeRO-3)."""
    pipeline: int = 1
    """Stages of layers."""
    context: int = 1
    """Shares of the sequence."""
    expert: int = 1
    """Shares of the experts (and of the batch outside of them)."""
    tensor: int = 1
    """Shares of heads, MLP features and vocabulary; should stay inside one node."""

    def __post_init__(self):
        for axis, size in self.sizes().items():
            if size < 1 and size != -1:
                raise InputError(f"mesh.{axis} = {size} must be a positive number, or -1 for what is left")
        free = [axis for axis, size in self.sizes().items() if size == -1]
        if len(free) > 1:
            raise InputError(
                f"only one mesh axis may be -1, but {' and '.join('mesh.' + a for a in free)} are"
            )

    def sizes(self) -> dict[str, int]:
        """Mesh axis → size as written, -1 included."""
        return {axis: getattr(self, axis) for axis in MESH_AXES}

    def resolve(self, devices: int) -> dict[str, int]:
        """Mesh axis → size for this number of devices.

        Raises:
            InputError: the product of the sizes is not the number of devices; shows the sum.
        """
        sizes = self.sizes()
        fixed = math.prod(size for size in sizes.values() if size != -1)
        if devices % fixed == 0:
            sizes = {axis: devices // fixed if size == -1 else size for axis, size in sizes.items()}
        if math.prod(sizes.values()) != devices:
            terms = " × ".join(f"{axis} {size}" for axis, size in sizes.items() if size != 1) or "1"
            free = any(size == -1 for size in sizes.values())
            takes = f"takes a multiple of {fixed} devices" if free else f"= {fixed} devices"
            raise InputError(
                f"the mesh does not fit: {terms} {takes}, and {devices} {'is' if devices == 1 else 'are'} "
                "here (change a mesh axis, set one to -1, or simulate devices with runtime.cpu_devices)"
            )
        return sizes


def build_mesh(config: MeshConfig | None = None, devices: Devices | None = None) -> Mesh:
    """The mesh over all devices of all processes, or over `devices`.

    Devices are ordered by process, then by id within it, and laid out with `tensor` innermost, so
    that neighbouring axes stay inside a node as long as they fit. All axes are `AxisType.Auto`.

    Raises:
        InputError: the sizes do not fit the devices, or `tensor` would straddle processes unevenly.
    """
    config = config or MeshConfig()
    devices = sorted(devices if devices is not None else jax.devices(), key=lambda d: (d.process_index, d.id))
    sizes = config.resolve(len(devices))
    _check_nodes(sizes, devices)
    grid = np.array(devices).reshape([sizes[axis] for axis in MESH_AXES])
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def _check_nodes(sizes: dict[str, int], devices: Devices) -> None:
    """Tensor groups must be whole shares of a process, or whole processes: never parts of two."""
    per_process = sum(d.process_index == devices[0].process_index for d in devices)
    tensor = sizes["tensor"]
    if per_process % tensor and tensor % per_process:
        raise InputError(
            f"mesh.tensor = {tensor} does not fit the {per_process} devices of a process: "
            f"a tensor group would take parts of two nodes (choose a divisor or a multiple of {per_process})"
        )
