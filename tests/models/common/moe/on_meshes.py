"""Twenty steps of a mixture of experts on every mesh, against one device: what no test has the time for.

    python tests/models/common/moe/on_meshes.py        # about five minutes on two cores

Without drops, and with drops and two microbatches; every loss, gradient norm, load and parameter is compared.
"""

import os
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from typing import Any

import jax
import numpy as np

from mjx.batch import token_batch
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.moe import MoEConfig, RouterConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.rope import RoPEConfig
from mjx.models.gpt import GPTConfig
from mjx.sharding import MeshConfig, Rule, ShardingConfig, build_mesh
from mjx.training.schedule import ScheduleConfig
from mjx.training.trainer import Trainer
from mjx.trees import flatten

STEPS, ROWS, SEQUENCE, VOCABULARY = 20, 16, 16, 61
FOLDED = ShardingConfig(
    rules={
        "experts": Rule(parameters=("expert", "tensor"), activations=("expert", "tensor")),
        "expert_mlp": Rule(),
    }
)
MESHES = {
    "expert 8": (MeshConfig(data=1, expert=8), None),
    "expert 4 × tensor 2": (MeshConfig(data=1, expert=4, tensor=2), None),
    "expert 4 × tensor 2, folded": (MeshConfig(data=1, expert=4, tensor=2), FOLDED),
    "data 2 × expert 2 × tensor 2": (MeshConfig(data=2, expert=2, tensor=2), None),
    "expert 2 × tensor 4": (MeshConfig(data=1, expert=2, tensor=4), None),
    "tensor 8": (MeshConfig(data=1, tensor=8), None),
    "data 8": (MeshConfig(data=8), None),
    "fsdp 2 × expert 4": (MeshConfig(data=1, fsdp=2, expert=4), None),
}


def config(capacity_factor: float | None) -> GPTConfig:
    """8 experts of which a token takes 2, with biases, every loss and a shared expert."""
    moe = MoEConfig(
        experts=8,
        top_k=2,
        mlp=MLPConfig(features=24, activation="silu", gated=True),
        shared_features=16,
        shared_gate=True,
        capacity_factor=capacity_factor,
        router=RouterConfig(
            scores="sigmoid",
            expert_bias_rate=1e-2,
            load_balancing_loss=1e-2,
            sequence_load_balancing_loss=1e-3,
            global_load_balancing_loss=1e-2,
            z_loss=1e-3,
        ),
    )
    return GPTConfig(
        num_layers=2,
        hidden_size=32,
        vocab_size=VOCABULARY,
        vocab_divisor=16,
        dtype="float32",
        remat="selective",
        attention=AttentionConfig(num_heads=8, num_query_groups=2, rope=RoPEConfig()),
        norm=NormConfig(kind="rmsnorm"),
        moe=moe,
    )


def trained(model: GPTConfig, mesh: Any, sharding: ShardingConfig | None, microbatches: int):
    """Metrics of every step, and the parameters at the end."""
    trainer = Trainer(
        model,
        steps=STEPS,
        batch=token_batch(rows=ROWS, sequence=SEQUENCE),
        schedule=ScheduleConfig(learning_rate=1e-2, warmup_steps=2),
        mesh=mesh,
        sharding=sharding,
        microbatches=microbatches,
    )
    state, said = trainer.init(seed=0), []
    for step in range(STEPS):
        random = np.random.RandomState(step)
        tokens = (random.randint(0, VOCABULARY, (ROWS, 1)) + np.arange(SEQUENCE + 1)) % VOCABULARY
        mask = (random.rand(ROWS, SEQUENCE) < 0.8).astype(np.float32)
        tokens = tokens.astype(np.int32)
        batch = {"tokens": tokens[:, :-1], "labels": tokens[:, 1:], "loss_mask": mask}
        state, metrics = trainer.step(state, batch)
        said.append({name: float(value) for name, value in metrics.items()})
    return said, {path: np.asarray(leaf) for path, leaf in flatten(state.parameters).items()}


def main() -> int:
    """1 if anything is apart by more than 1e-5."""
    worst = 0.0
    for capacity_factor, microbatches in ((None, 1), (1.0, 2)):
        model = config(capacity_factor)
        one = build_mesh(MeshConfig(data=1), jax.devices()[:1])
        expected, parameters = trained(model, one, None, microbatches)
        last = expected[-1]
        print(
            f"capacity_factor {capacity_factor}, {microbatches} microbatches: loss "
            f"{expected[0]['loss']:.4f} → {last['loss']:.4f}, {last['choices_dropped']:.0f} choices "
            "dropped in the last step"
        )
        for name, (mesh, sharding) in MESHES.items():
            said, found = trained(model, mesh, sharding, microbatches)
            metrics = max(
                abs(ours[key] - value) / max(1, abs(value))
                for ours, theirs in zip(said, expected, strict=True)
                for key, value in theirs.items()
            )
            apart = max(np.abs(found[path] - leaf).max() for path, leaf in parameters.items())
            print(f"  {name:30} metrics {metrics:.1e}, parameters {apart:.1e}", flush=True)
            worst = max(worst, metrics, float(apart))
    return int(worst > 1e-5)


if __name__ == "__main__":
    sys.exit(main())
