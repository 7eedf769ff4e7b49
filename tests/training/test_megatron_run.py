"""Twelve steps of models with experts equal those of Megatron-Core 0.16.1."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from goldens.megatron_moe import training

from mjx.batch import token_batch
from mjx.models.gpt.megatron import megatron_name_map
from mjx.models.megatron import read_settings
from mjx.sharding import MeshConfig, build_mesh
from mjx.training.optimizer import OptimizerConfig
from mjx.training.schedule import ScheduleConfig
from mjx.training.trainer import Trainer

GOLDENS = np.load(Path(training.__file__).with_name("training.npz"))


def batch_of(run: str, step: int) -> dict[str, np.ndarray]:
    """Row r of the batch is in microbatch r mod their number."""
    tokens = np.swapaxes(training.tokens(run, step), 0, 1).reshape(-1, training.SEQUENCE + 1).astype(np.int32)
    mask = np.ones((len(tokens), training.SEQUENCE), np.float32)
    return {"tokens": tokens[:, :-1], "labels": tokens[:, 1:], "loss_mask": mask}


@pytest.mark.parametrize("run", training.RUNS)
def test_losses_norms_weights_and_biases_after_twelve_steps_equal_megatron_s(run):
    settings, microbatches = training.RUNS[run]
    given = {**settings, "vocab_size": training.VOCABULARY, "model": training.MODEL}
    _, config = read_settings(given, run)
    if all(config.moe_layers):  # so that one layer is compiled for all
        config = dataclasses.replace(config, remat="full")
    trainer = Trainer(
        config,
        steps=training.STEPS,
        batch=token_batch(training.MICROBATCH * microbatches, training.SEQUENCE),
        mesh=build_mesh(MeshConfig(), jax.devices()[:1]),
        optimizer=OptimizerConfig(
            beta1=training.BETAS[0],
            beta2=training.BETAS[1],
            eps=training.EPSILON,
            weight_decay=training.WEIGHT_DECAY,
            clip_norm=training.CLIP,
        ),
        schedule=ScheduleConfig(
            kind="cosine",
            learning_rate=training.LEARNING_RATE,
            min_learning_rate=training.LAST,
            warmup_steps=training.WARMUP,
            decay_steps=training.STEPS,
        ),
        microbatches=microbatches,
    )
    names = megatron_name_map(config)
    first = {name: training.start(run, name, shape) for name, shape in names.theirs.items()}
    first |= {name: np.zeros_like(array) for name, array in first.items() if name.endswith("expert_bias")}
    state, losses, norms = trainer.start(names.to_ours(first)), [], []
    for step in range(training.STEPS):
        state, metrics = trainer.step(state, batch_of(run, step))
        losses.append(float(metrics["loss"]))
        norms.append(float(metrics["grad_norm"]))
    np.testing.assert_allclose(losses, GOLDENS[f"{run}/losses"], rtol=1e-6)
    np.testing.assert_allclose(norms, GOLDENS[f"{run}/norms"], rtol=2e-6)
    last = names.to_theirs(jax.device_get(state.parameters))
    assert {f"{run}/last/{name}" for name in last} == {
        key for key in GOLDENS if key.startswith(f"{run}/last/")
    }
    for name, array in last.items():
        np.testing.assert_allclose(array, GOLDENS[f"{run}/last/{name}"], rtol=0, atol=1e-6, err_msg=name)
