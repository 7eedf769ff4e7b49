"""How much of a microbatch one device has, where it has whole sequences."""

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

    def exchanges(self, convolved: float, states: float) -> tuple[Exchange, ...]:
        """Of a layer whose part of a row leaves so many inputs of the convolution and float32 numbers of the
        state: both are gathered in every pass, and their gradients scattered or gathered backward."""
        if self.tokens == 1:
            return ()
        rows = self.step.rows / self.rows
        sent = (self.tokens - 1) * rows * (convolved * self.step.itemsize + 4 * states)
        axes = tuple(
            axis for axis in self.step.rules.mesh_axes("sequence") if self.step.sizes.get(axis, 1) > 1
        )
        return (Exchange("states", axes, sent, sent, sent),)

    def _devices(self, name: str) -> int:
        return math.prod(self.step.sizes.get(axis, 1) for axis in self.step.rules.mesh_axes(name))
