"""A mixer of your own, in the place of attention: what it takes, and a model with it, trained on any mesh.

    python examples/own_mixer.py

Each feature is averaged over the past with a forgetting of its own, and gated by the token.
"""

import dataclasses
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mjx.batch import token_batch
from mjx.models.common.linear import Linear
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.parameter import parameter
from mjx.models.common.pattern import Mixed, MixerConfig, SublayerConfig
from mjx.models.common.token_model.language_model import LanguageModelConfig
from mjx.sharding import MeshConfig, relayout, shard
from mjx.training.schedule import ScheduleConfig
from mjx.training.trainer import Trainer


@dataclasses.dataclass(frozen=True, kw_only=True)
class AverageConfig(MixerConfig):
    """An average over the past."""

    name: ClassVar[str] = "average"
    features: int
    """That are averaged."""

    def build(self, embed, *, std, output_std, rngs):
        return Average(self.features, embed, std, output_std, rngs)

    def flops_per_token(self, embed, lengths):
        return 2 * 3 * embed * self.features


class Average(nnx.Module):
    """`out(silu(gate(x)) · average(value(x)))`."""

    def __init__(self, features, embed, std, output_std, rngs):
        self.value = Linear({"embed": embed}, {"inner": features}, std=std, rngs=rngs)
        self.gate = Linear({"embed": embed}, {"inner": features}, std=std, rngs=rngs)
        self.forgetting = parameter(jnp.linspace(-4.0, 2.0, features), "inner")
        self.output = Linear({"inner": features}, {"embed": embed}, std=output_std, rngs=rngs)

    def __call__(self, x, context, cache=None):
        x = relayout(x, ("batch", "residual_sequence", "embed"), ("batch", "sequence", "embed"))
        forgotten = jax.nn.sigmoid(self.forgetting[...])
        new = shard(self.value(x), "batch", "sequence", "inner") * forgotten
        kept = jnp.broadcast_to(1 - forgotten, new.shape)
        _, average = jax.lax.associative_scan(
            lambda a, b: (a[0] * b[0], b[1] + b[0] * a[1]), (kept, new), axis=1
        )
        y = self.output(shard(jax.nn.silu(self.gate(x)) * average, "batch", "sequence", "inner"))
        return Mixed(shard(y, "batch", "residual_sequence", "embed"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AverageModelConfig(LanguageModelConfig):
    """Averages and MLPs in turn."""

    num_layers: int
    """Of each."""
    final_norm: ClassVar[NormConfig] = NormConfig(kind="rmsnorm")

    def sublayers(self):
        mixers = AverageConfig(features=2 * self.hidden_size), MLPConfig(features=4 * self.hidden_size)
        return tuple(SublayerConfig(mixer=mixer, norm=self.final_norm) for mixer in mixers) * self.num_layers


def main(steps: int = 50, mesh: MeshConfig | None = None) -> list[float]:
    """Train on the source of NumPy; the losses."""
    model = AverageModelConfig(num_layers=2, hidden_size=64, vocab_size=256)
    schedule = ScheduleConfig(learning_rate=3e-3, warmup_steps=5)
    arrays = token_batch(rows=8, sequence=64)
    trainer = Trainer(model, steps=steps, batch=arrays, schedule=schedule, mesh=mesh or MeshConfig(data=-1))
    state, losses = trainer.init(seed=0), []
    text = np.frombuffer(Path(np.__file__).read_bytes(), np.uint8).astype(np.int32)
    for step in range(steps):
        starts = np.random.default_rng(step).integers(0, len(text) - 65, 8)
        rows = np.stack([text[start : start + 65] for start in starts])
        batch = {"tokens": rows[:, :-1], "labels": rows[:, 1:], "loss_mask": np.ones((8, 64))}
        state, metrics = trainer.step(state, batch)
        losses.append(float(metrics["loss"]))
    return losses


if __name__ == "__main__":
    losses = main()
    print(f"loss {losses[0]:.2f} → {losses[-1]:.2f} after {len(losses)} steps")
