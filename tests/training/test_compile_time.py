"""Depth is scanned: the compiled program does not grow with it."""

import re

import pytest

from mjx.batch import token_batch
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.gpt import GPTConfig
from mjx.training.trainer import Trainer


def lowered(num_layers: int) -> str:
    config = GPTConfig(
        num_layers=num_layers,
        hidden_size=32,
        vocab_size=64,
        attention=AttentionConfig(num_heads=2),
        mlp=MLPConfig(features=64),
    )
    trainer = Trainer(config, steps=10, batch=token_batch(8, 16))
    with trainer.on_mesh():
        return trainer.train_step.lower(trainer.layout.abstract, trainer.batch_layout.abstract).as_text()


@pytest.mark.parametrize("num_layers", [12, 48])
def test_the_program_of_a_deep_model_is_that_of_a_shallow_one_with_another_layer_count(num_layers):
    def without_sizes(text: str) -> list[str]:
        return [re.sub(r"\d+", "N", line) for line in text.splitlines()]

    assert without_sizes(lowered(num_layers)) == without_sizes(lowered(4))
