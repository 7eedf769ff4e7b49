"""Depth is scanned: the compiled program does not grow with it. It is compiled once, beside other work."""

import re

import jax
import numpy as np
import pytest

from mjx.batch import token_batch
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.rope import RoPEConfig
from mjx.models.family import abstract_model
from mjx.models.gpt import GPTConfig
from mjx.training.trainer import Trainer


def trainer_of(num_layers: int) -> Trainer:
    config = GPTConfig(
        num_layers=num_layers,
        hidden_size=32,
        vocab_size=64,
        attention=AttentionConfig(num_heads=2),
        mlp=MLPConfig(features=64),
    )
    return Trainer(config, steps=10, batch=token_batch(8, 16))


def lowered(num_layers: int) -> str:
    trainer = trainer_of(num_layers)
    with trainer.on_mesh():
        return trainer.train_step.lower(trainer.layout.abstract, trainer.batch_layout.abstract).as_text()


@pytest.mark.parametrize("num_layers", [12, 48])
def test_the_program_of_a_deep_model_is_that_of_a_shallow_one_with_another_layer_count(num_layers):
    def without_sizes(text: str) -> list[str]:
        return [re.sub(r"\d+", "N", line) for line in text.splitlines()]

    assert without_sizes(lowered(num_layers)) == without_sizes(lowered(4))


def test_one_cpu_computes_rotary_tables_when_it_compiles():
    config = GPTConfig(
        num_layers=2,
        hidden_size=32,
        vocab_size=64,
        attention=AttentionConfig(num_heads=2, rope=RoPEConfig()),
        mlp=MLPConfig(features=64),
    )
    model = abstract_model(config)
    tokens = jax.ShapeDtypeStruct((2, 16), np.int32)

    def program(**places: jax.ShapeDtypeStruct) -> str:
        call = jax.jit(lambda model, tokens, places: model(tokens, **places))
        return call.lower(model, tokens, places).compile().as_text()

    assert " sine(" not in program()
    assert " sine(" in program(positions=tokens)


def test_a_step_that_was_compiled_beside_is_not_compiled_again(caplog):
    trainer = trainer_of(1)
    jax.config.update("jax_log_compiles", True)
    try:
        trainer.compile_beside()
        state = trainer.init(seed=0)
        rows = np.ones((8, 16), np.int32)
        batch = {"tokens": rows, "labels": rows, "loss_mask": rows.astype(np.float32)}
        for _ in range(2):
            state, metrics = trainer.step(state, batch)
    finally:
        jax.config.update("jax_log_compiles", False)
    done = "Finished XLA compilation of jit(step)"
    (compiled,) = [record for record in caplog.records if record.getMessage().startswith(done)]
    assert compiled.threadName == "mjx compiles the training step"
    assert int(state.step) == 2
    assert np.isfinite(metrics["loss"])
