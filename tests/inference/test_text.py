"""Texts of a model that reads prompts apart: how its data says that they are read, and what begins."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from mjx.data.pairs.written import PairSourceConfig, WrittenConfig
from mjx.data.tokenizers import load_tokenizer
from mjx.errors import InputError
from mjx.inference import Generator, SamplingConfig
from mjx.inference.text import check_texts, continue_texts
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.parameter import parameters_of
from mjx.models.t5 import T5Config
from mjx.trees import flatten, unflatten

SAMPLING = SamplingConfig(temperature=0.0, max_new_tokens=6)
DATA = WrittenConfig(
    sources=(PairSourceConfig(path="pairs.jsonl"),),
    tokenizer="byte",
    **{"prefix": "say: ", "start": 7, "eos": 9},
)


@pytest.fixture(scope="module")
def generator():
    config = T5Config(
        num_layers=1,
        hidden_size=32,
        vocab_size=257,
        attention=AttentionConfig(num_heads=4),
        mlp=MLPConfig(features=40),
        dtype="float32",
    )
    model = jax.eval_shape(lambda: config.build(nnx.Rngs(0)))
    random = np.random.default_rng(0)
    values = {
        path: (random.normal(0, 0.3, leaf.shape) + path.endswith("scale")).astype(np.float32)
        for path, leaf in flatten(parameters_of(model)).items()
    }
    return Generator(model, unflatten(values))


def test_prompts_are_read_as_the_rows_of_the_data_and_the_answer_stands_alone(generator):
    tokenizer = load_tokenizer("byte")
    texts = continue_texts(generator, tokenizer, ["one", "another"], SAMPLING, data=DATA)
    ids = [[*tokenizer.encode(f"say: {text}"), 9] for text in ("one", "another")]
    stops = () if tokenizer.eod_id is None else (tokenizer.eod_id,)
    sampling = dataclasses.replace(SAMPLING, start_token=7, stop_tokens=stops)
    assert texts == [tokenizer.decode(tokens) for tokens in generator(ids, sampling)]
    assert texts[0] != texts[1]


def test_a_start_token_of_the_sampling_goes_before_that_of_the_data(generator):
    tokenizer = load_tokenizer("byte")
    other = dataclasses.replace(SAMPLING, start_token=8)
    one, two = (
        continue_texts(generator, tokenizer, ["one"], sampling, data=DATA) for sampling in (SAMPLING, other)
    )
    assert one != two
    same = dataclasses.replace(DATA, start=8)
    assert continue_texts(generator, tokenizer, ["one"], SAMPLING, data=same) == two


def test_what_could_not_begin_is_refused_before_training(generator):
    check_texts(generator.model, load_tokenizer("byte"), ["one"], SAMPLING, DATA)
    with pytest.raises(InputError, match=r"sampling\.start_token = null"):
        check_texts(generator.model, load_tokenizer("byte"), ["one"], SAMPLING)
