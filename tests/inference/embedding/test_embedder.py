"""Embeddings of rows of tokens, by models of the registry."""

import jax
import numpy as np
import pytest
from flax import nnx

from mjx.errors import InputError
from mjx.inference.embedding import Embedder
from mjx.models.bert import BertConfig
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.attention.relative_bias import RelativeBiasConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.parameter import bind, parameters_of
from mjx.models.family import Embeds, abstract_model
from mjx.models.gpt import GPTConfig
from mjx.models.t5 import T5Config

SIZES = {"num_layers": 1, "hidden_size": 16, "vocab_size": 50, "init_std": 0.3, "dtype": "float32"}
ROWS = [[7, 3, 9, 4, 2], [1, 2], [5, 6, 7, 8, 9, 10, 11, 12, 13]]


@pytest.fixture(scope="module")
def bert():
    attention, mlp = AttentionConfig(num_heads=2), MLPConfig(features=32)
    config = BertConfig(**SIZES, attention=attention, mlp=mlp, max_positions=12, pooler=True)
    return abstract_model(config), parameters_of(config.build(nnx.Rngs(params=jax.random.key(0))))


def test_an_encoder_embeds_and_a_decoder_does_not(bert):
    assert isinstance(bert[0], Embeds)
    attention, mlp = AttentionConfig(num_heads=2), MLPConfig(features=32)
    assert not isinstance(abstract_model(GPTConfig(**SIZES, attention=attention, mlp=mlp)), Embeds)


def test_inner_is_the_mean_without_the_first_and_the_last_token(bert):
    """As Megatron-Core's goldens of BERT hold it, too (tests/models/bert)."""
    model, parameters = bert
    found = Embedder(model, parameters, pooling="inner")(ROWS)
    for row, each in zip(ROWS, found, strict=True):
        states = np.asarray(bind(model, parameters).encoded({"tokens": np.array([row])}))[0]
        expected = states[1:-1].mean(axis=0) if len(row) > 2 else np.zeros_like(each)
        np.testing.assert_allclose(each, expected, atol=1e-5)


def test_the_pooler_reads_the_first_state(bert):
    model, parameters = bert
    found = Embedder(model, parameters, pooling=("pooler", "cls"))(ROWS)
    bound = bind(model, parameters)
    np.testing.assert_allclose(found[:, :16], bound.pooled(found[:, None, 16:]), atol=1e-5)


def test_the_encoder_of_an_encoder_decoder_embeds():
    config = T5Config(
        **SIZES,
        attention=AttentionConfig(num_heads=2, relative_bias=RelativeBiasConfig()),
        mlp=MLPConfig(features=32),
    )
    model, parameters = (
        abstract_model(config),
        parameters_of(config.build(nnx.Rngs(params=jax.random.key(0)))),
    )
    found = Embedder(model, parameters)(ROWS)
    for row, each in zip(ROWS, found, strict=True):
        states = bind(model, parameters).encoded({"tokens": np.array([row])})
        np.testing.assert_allclose(each, np.mean(states[0], axis=0), atol=1e-5)
    with pytest.raises(InputError, match="pooling = pooler: the model has no pooler"):
        Embedder(model, parameters, pooling="pooler")


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([[1], []], "row 1 is empty"),
        ([[1] * 13], "row 0 has 13 tokens, but the model has only 12 learned positions"),
        ([[1, 50]], "row 0 has the token ids 1 to 50; the model's are 0 to 49"),
    ],
)
def test_rows_that_the_model_cannot_read_are_refused(bert, rows, sentence):
    with pytest.raises(InputError, match=sentence):
        Embedder(*bert)(rows)


def test_an_unknown_way_of_pooling_is_refused(bert):
    with pytest.raises(InputError, match=r"median is not known \(choose from mean, cls"):
        Embedder(*bert, pooling="median")
    with pytest.raises(InputError, match="batch_tokens = 0 must be positive"):
        Embedder(*bert, batch_tokens=0)
