"""One run, many meshes: 20 steps in float32 give the same losses and the same parameters."""

import functools

import jax
import numpy as np
import pytest

from mjx.batch import token_batch
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.rope import RoPEConfig
from mjx.models.gpt import GPTConfig
from mjx.sharding import MeshConfig, ShardingConfig, build_mesh
from mjx.training.optimizer import OptimizerConfig
from mjx.training.schedule import ScheduleConfig
from mjx.training.trainer import Trainer
from mjx.trees import flatten

STEPS, BATCH, SEQUENCE, VOCAB = 20, 32, 16, 250

# Query groups fewer than tensor 4 (replicated), a vocabulary that needs padding, and tied tables. No bias
# of the keys: softmax hardly sees it, so its gradient is near rounding noise, which Adam scales up to the
# size of any other update; no two orders of summation agree on such a parameter.
MODEL = GPTConfig(
    num_layers=2,
    hidden_size=64,
    vocab_size=VOCAB,
    attention=AttentionConfig(num_heads=4, num_query_groups=2, rope=RoPEConfig()),
    mlp=MLPConfig(features=96, activation="silu", gated=True),
    norm=NormConfig(kind="rmsnorm"),
    tie_embeddings=True,
    z_loss=1e-4,
)


def batches():
    random = np.random.RandomState(0)
    for _ in range(STEPS):
        # Counting upwards from somewhere: learnable, so that the losses move.
        tokens = (random.randint(0, VOCAB, (BATCH, 1)) + np.arange(SEQUENCE + 1)) % VOCAB
        tokens = tokens.astype(np.int32)
        mask = (random.rand(BATCH, SEQUENCE) < 0.8).astype(np.float32)
        yield {"tokens": tokens[:, :-1], "labels": tokens[:, 1:], "loss_mask": mask}


def run(mesh: MeshConfig, *, devices: int = 8, sequence_parallel: bool = True, **options):
    trainer = Trainer(
        MODEL,
        steps=STEPS,
        batch=token_batch(BATCH, SEQUENCE),
        mesh=build_mesh(mesh, jax.devices()[:devices]),
        sharding=ShardingConfig(sequence_parallel=sequence_parallel),
        optimizer=OptimizerConfig(),
        schedule=ScheduleConfig(learning_rate=1e-3, warmup_steps=3),
        **options,
    )
    state, losses = trainer.init(seed=0), []
    for batch in batches():
        state, metrics = trainer.step(state, batch)
        losses.append(float(metrics["loss"]))
    return np.array(losses), {k: np.asarray(v) for k, v in flatten(state.parameters).items()}


@functools.cache
def one_device():
    return run(MeshConfig(), devices=1)


CASES = {
    "data 8": {"mesh": MeshConfig(data=8)},
    "fsdp 8": {"mesh": MeshConfig(data=1, fsdp=8)},
    "tensor 4 × data 2, sequence parallel": {"mesh": MeshConfig(data=2, tensor=4)},
    "tensor 4 × data 2": {"mesh": MeshConfig(data=2, tensor=4), "sequence_parallel": False},
    "fsdp 2 × tensor 2 × data 2": {"mesh": MeshConfig(data=2, fsdp=2, tensor=2)},
    "fsdp 2 × tensor 2 × data 2, ZeRO-1, 2 microbatches": {
        "mesh": MeshConfig(data=2, fsdp=2, tensor=2),
        "zero1": True,
        "microbatches": 2,
    },
    "data 8, 4 microbatches": {"mesh": MeshConfig(data=8), "microbatches": 4},
    "one device, 4 microbatches": {"mesh": MeshConfig(), "devices": 1, "microbatches": 4},
    "data 4 × tensor 2, ZeRO-1": {"mesh": MeshConfig(data=4, tensor=2), "zero1": True},
    "context 2 × tensor 2 × data 2": {"mesh": MeshConfig(data=2, context=2, tensor=2)},
}


@pytest.mark.parametrize("name", CASES)
def test_losses_agree_to_1e_5_and_parameters_to_1e_4_with_one_device(name):
    expected_losses, expected = one_device()
    losses, parameters = run(**CASES[name])
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    assert expected_losses[-1] < 0.99 * expected_losses[0]
    for path, value in expected.items():
        np.testing.assert_allclose(
            parameters[path], value, rtol=1e-4, atol=1e-4 * np.abs(value).max(), err_msg=path
        )


def test_zero1_splits_the_moments_further_than_their_parameters():
    trainer = Trainer(
        MODEL,
        steps=2,
        batch=token_batch(BATCH, SEQUENCE),
        mesh=MeshConfig(data=4, tensor=2),
        zero1=True,
    )
    state = trainer.init(seed=0)
    parameter = state.parameters["embedding"]["weight"]
    moments = [leaf for leaf in jax.tree.leaves(state.optimizer) if leaf.shape == parameter.shape]
    assert moments
    for moment in moments:
        assert moment.addressable_shards[0].data.size * 4 == parameter.addressable_shards[0].data.size
