"""How much of a microbatch one device has, and what it gathers of the others."""

import dataclasses
import math

from mjx.models.common.pattern import Exchange, StepOnMesh


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

    @property
    def tokens(self) -> int:
        """Devices over which the tokens of a row are split."""
        return self._devices("sequence")

    @property
    def parts(self) -> int:
        """Of a row that a device has apart from one another."""
        return 2 if self.tokens > 1 and self.step.rules.zigzag else 1

    def gathered(self, name: str, sent: float) -> tuple[Exchange, ...]:
        """Of a layer that gathers so many bytes of every device over those that have parts of its rows: in
        every pass, and backward their gradients are scattered or gathered."""
        if self.tokens == 1:
            return ()
        sent *= self.tokens - 1
        axes = self.step.rules.mesh_axes("sequence")
        split = tuple(axis for axis in axes if self.step.sizes.get(axis, 1) > 1)
        return (Exchange(name, split, sent, sent, sent),)

    def _devices(self, name: str) -> int:
        return math.prod(self.step.sizes.get(axis, 1) for axis in self.step.rules.mesh_axes(name))
