"""How much of a microbatch one device has, where it has whole sequences."""

import dataclasses
import math

from mjx.models.common.pattern import StepOnMesh


@dataclasses.dataclass(frozen=True)
class Share:
    """Of a microbatch on a mesh, each device's."""

    step: StepOnMesh

    @property
    def rows(self) -> int:
        """Devices over which rows are split."""
        return self._devices("batch")

    def over(self, name: str, size: int) -> int:
        """Devices over which a logical axis of this size is split: none, where it is too small and copied."""
        devices = self._devices(name)
        return devices if size % devices == 0 else 1

    def _devices(self, name: str) -> int:
        return math.prod(self.step.sizes.get(axis, 1) for axis in self.step.rules.mesh_axes(name))
