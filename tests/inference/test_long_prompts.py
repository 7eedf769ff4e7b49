"""Prompts that are read in parts: the logits, texts and programs of prompts that are read at once."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from mjx.errors import InputError
from mjx.inference import Generator, SamplingConfig
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.moe import MoEConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.parameter import bind, parameters_of
from mjx.models.common.rope import RoPEConfig, RoPEScaling
from mjx.models.common.state_space import SelectiveScanConfig, SSDConfig
from mjx.models.common.token_model.language_model import LanguageModelConfig
from mjx.models.gpt import GPTConfig
from mjx.models.mamba import MambaConfig
from mjx.sharding import MeshConfig, ShardingConfig, build_mesh
from mjx.trees import flatten, unflatten

SIZES = {"hidden_size": 32, "vocab_size": 61, "vocab_divisor": 16, "dtype": "float32"}
CHUNK = 8
TOKENS = np.random.RandomState(0).randint(0, SIZES["vocab_size"], (4, 40)).astype(np.int32)
LENGTHS = np.arange(1, 37, dtype=np.int32).reshape(4, 9).T
"""Of the prompts of nine ragged batches: between them each length once."""

LONG_ROPE = RoPEScaling(
    kind="longrope",
    factor=4.0,
    original_positions=16,  # longer prompts are beyond it, their first parts not
    short_factors=(1.0, 1.1, 1.2, 1.3),
    long_factors=(1.0, 2.0, 3.0, 4.0),
)
GPT = functools.partial(
    GPTConfig,
    **SIZES,
    num_layers=2,
    mlp=MLPConfig(features=48, activation="silu", gated=True),
    norm=NormConfig(kind="rmsnorm"),
)
MAMBA = functools.partial(MambaConfig, **SIZES)
ATTENTION = functools.partial(AttentionConfig, num_heads=4, num_query_groups=2, head_dim=8)
SSD = SSDConfig(state=8, head_dim=8, groups=2, chunk_size=4)

CONFIGS: dict[str, LanguageModelConfig] = {
    "rope, a window in one layer of two, learned positions": GPT(
        attention=ATTENTION(rope=RoPEConfig(), window=5, softmax="learnable"),
        window_pattern=(True, False),
        max_positions=TOKENS.shape[1],
    ),
    "rope by the length of the row": GPT(attention=ATTENTION(rope=RoPEConfig(scaling=LONG_ROPE))),
    "Mamba-1": MAMBA(hybrid_pattern="m", selective_scan=SelectiveScanConfig(state=8, dt_rank=4)),
    "Mamba-2": MAMBA(hybrid_pattern="M", ssd=SSD),
    "hybrid with experts": MAMBA(
        hybrid_pattern="M*E",
        ssd=SSD,
        attention=ATTENTION(),
        moe=MoEConfig(experts=4, mlp=MLPConfig(features=24, activation="relu2")),
    ),
}


@functools.cache
def model_of(name: str, std: float = 0.1):
    """An abstract model, and parameters none of which (gains, biases, sinks) has a special value."""
    built, random = CONFIGS[name].build(nnx.Rngs(0)), np.random.RandomState(1)
    values = {
        path: (leaf + std * random.randn(*leaf.shape)).astype(np.float32)
        for path, leaf in flatten(parameters_of(built)).items()
    }
    return jax.eval_shape(lambda: built), unflatten(values)


@pytest.mark.parametrize("name", CONFIGS)
def test_ragged_prompts_in_parts_and_what_follows_them_have_the_logits_of_one_pass(name):
    """To 1e-5, at every position."""
    definition, parameters = model_of(name)
    model, rows, slots = bind(definition, parameters), np.arange(len(TOKENS)), TOKENS.shape[1]
    places = np.arange(slots)
    whole = jax.jit(lambda at: model(TOKENS, positions=at))
    begin = jax.jit(lambda tokens, lengths: model.begin({"tokens": tokens}, lengths, slots))
    read_on, step = jax.jit(model.read_on), jax.jit(model.next)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)

    def expected(lengths):
        """Nothing is seen of what stands behind a row's end, but where it ends is."""
        return np.asarray(whole(np.where(places < lengths[:, None], places, 0)))[rows, lengths - 1]

    for lengths in LENGTHS:
        given = np.where(places < lengths[:, None], TOKENS, 7)
        got, caches = begin(given[:, :CHUNK], lengths)
        for start in range(CHUNK, lengths.max(), CHUNK):
            offset = np.minimum(start, lengths)
            logits, caches = read_on(given[:, start : start + CHUNK], caches, offset, lengths)
            got = np.where((offset < lengths)[:, None], logits, got)
        close(got, expected(lengths))
    for _ in range(4):  # behind the last batch
        logits, caches = step(TOKENS[rows, lengths][:, None], caches, lengths)
        lengths = lengths + 1
        close(logits[:, 0], expected(lengths))


def test_the_text_does_not_depend_on_the_parts_nor_on_the_mesh():
    """The second row ends with its first token, while the third is still read; on the mesh a fourth pads."""
    random = np.random.RandomState(2)
    prompts = [random.randint(0, SIZES["vocab_size"], length).tolist() for length in (5, 56, 60)]
    model, parameters = model_of("hybrid with experts", std=0.5)  # so large that each token matters
    generator = Generator(model, parameters)
    config = SamplingConfig(temperature=1.5, top_k=30, seed=45, max_new_tokens=4, stop_tokens=tuple(range(8)))
    texts = generator(prompts, config)
    in_parts = dataclasses.replace(config, prefill_chunk=28)  # 84 in all, for texts of 64
    assert generator(prompts, in_parts) == texts
    mesh = build_mesh(MeshConfig(data=2, tensor=4))
    on_mesh = Generator(model, parameters, mesh=mesh, rules=ShardingConfig().build())
    assert on_mesh(prompts, in_parts) == texts
    assert [len(text) for text in texts] == [3, 0, 4]


def test_a_model_of_states_has_one_program_for_all_parts_of_prompts_of_any_length():
    generator: Any = Generator(*model_of("Mamba-2"))
    for length in (CHUNK + 1, 5 * CHUNK, 50 * CHUNK + 3):
        generator([[4] * length], SamplingConfig(max_new_tokens=6, prefill_chunk=CHUNK))
    programs = (generator._prefill, generator._read_on, generator._decode)
    assert [program._cache_size() for program in programs] == [1, 1, 1]


def test_only_what_keeps_something_of_every_token_has_caches_that_grow():
    grow = {name: model_of(name)[0].caches_grow for name in CONFIGS}
    assert [name for name, does in grow.items() if not does] == ["Mamba-1", "Mamba-2"]


def test_a_part_without_tokens_is_refused_with_a_sentence():
    with pytest.raises(InputError, match=r"sampling.prefill_chunk = 0 must be at least 1"):
        SamplingConfig(prefill_chunk=0)
