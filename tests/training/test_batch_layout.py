"""Batches on the devices: as long as the data says, or shorter."""

import jax
import numpy as np
import pytest

from mjx.batch import token_batch
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.gpt import GPTConfig
from mjx.sharding import MeshConfig, build_mesh
from mjx.training.optimizer import OptimizerConfig
from mjx.training.schedule import ScheduleConfig
from mjx.training.trainer import Trainer

MODEL = GPTConfig(
    num_layers=1,
    hidden_size=16,
    vocab_size=64,
    attention=AttentionConfig(num_heads=2),
    mlp=MLPConfig(features=32),
)


def trainer(arrays):
    return Trainer(
        MODEL,
        steps=3,
        batch=arrays,
        mesh=build_mesh(MeshConfig(), jax.devices()[:2]),
        optimizer=OptimizerConfig(),
        schedule=ScheduleConfig(learning_rate=1e-3),
    )


def test_a_batch_that_is_shorter_trains_as_if_it_were_padded():
    random, losses = np.random.RandomState(0), []
    tokens = random.randint(0, 64, (4, 9)).astype(np.int32)
    for length in (8, 16):
        batch = {
            "tokens": np.zeros((4, length), np.int32),
            "labels": np.zeros((4, length), np.int32),
            "loss_mask": np.zeros((4, length), np.float32),
        }
        batch["tokens"][:, :8], batch["labels"][:, :8] = tokens[:, :-1], tokens[:, 1:]
        batch["loss_mask"][:, :8] = 1.0
        run = trainer(token_batch(4, 16))
        _, metrics = run.step(run.init(seed=0), batch)
        losses.append(float(metrics["loss"]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_only_sequences_may_be_shorter():
    layout = trainer(token_batch(4, 16)).batch_layout
    batch = {name: np.zeros(array.shape, array.dtype) for name, array in layout.arrays.items()}
    short = {name: values[:, :6] for name, values in batch.items()}
    assert {array.shape for array in layout.place(short).values()} == {(4, 6)}
    for wrong in (np.zeros((4, 17)), np.zeros((3, 16)), np.zeros(4)):
        with pytest.raises(ValueError, match="batch array 'tokens' has the shape"):
            layout.place(batch | {"tokens": wrong})
