"""Whether the program is one CPU's, for which some of it is better written otherwise."""

from mjx.kernels.capability import current_device
from mjx.sharding import mesh_shape


def on_one_cpu() -> bool:
    """Whether nothing is split over a mesh, and the device is a CPU."""
    return current_device()[0] == "cpu" and all(size == 1 for size in mesh_shape().values())
