"""What a state-space sub-layer keeps of the tokens before: as much after a million of them as after one."""

import dataclasses
from collections.abc import Mapping

import jax
from jaxtyping import Array, Float


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StateCache:
    """What the next token needs."""

    past: Mapping[str, Float[Array, "batch past ..."]]
    """Of each part that is convolved, the inputs that the convolution of the next token reaches."""
    state: Float[Array, "batch ..."]
    """Of the recurrence, in float32."""

    def named(self) -> dict[str, Array]:
        """All of it, by name."""
        return {"state": self.state} | {f"past of {name}": array for name, array in self.past.items()}

    @classmethod
    def of(cls, named: Mapping[str, Array]) -> "StateCache":
        """From what `named` gives, with whatever else is there."""
        prefix = "past of "
        past = {name.removeprefix(prefix): named[name] for name in named if name.startswith(prefix)}
        return cls(past, named["state"])
