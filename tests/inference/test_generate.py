"""Generation with caches against the reference's whole forward pass, run again for every token."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from reference.decoder import decode

from mjx.errors import InputError
from mjx.inference import Generator, SamplingConfig, generate
from mjx.inference.generate import Request
from mjx.inference.rows import rounded
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.moe import DispatchConfig, MoEConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.parameter import parameters_of
from mjx.models.common.rope import RoPEConfig
from mjx.models.gpt import GPTConfig
from mjx.sharding import MeshConfig, Rule, ShardingConfig, build_mesh, use_mesh
from mjx.trees import flatten, unflatten

VOCAB = 61
GREEDY = SamplingConfig(temperature=0.0, max_new_tokens=12)
PROMPTS = [[5], [7, 1, 9, 30, 2], [3] * 17, list(range(1, 22))]
ROPE = RoPEConfig()


def config_of(*, attention: dict | None = None, **changes) -> GPTConfig:
    options = {
        "num_layers": 2,
        "hidden_size": 32,
        "vocab_size": VOCAB,
        "attention": AttentionConfig(**{"num_heads": 4, "head_dim": 8, "rope": ROPE, **(attention or {})}),
        "mlp": MLPConfig(features=48, activation="silu", gated=True),
        "norm": NormConfig(kind="rmsnorm"),
        "dtype": "float32",
    }
    return GPTConfig(**{**options, **changes})


def model_of(config: GPTConfig, seed: int = 0):
    """An abstract model, and parameters none of which (gains, biases, sinks) has a special value."""
    model = jax.eval_shape(lambda: config.build(nnx.Rngs(0)))
    random = np.random.default_rng(seed)
    values = {
        path: (random.normal(0, 0.2, leaf.shape) + path.endswith("scale")).astype(np.float32)
        for path, leaf in flatten(parameters_of(model)).items()
    }
    return model, unflatten(values)


CONFIGS = {
    "grouped-query": {"attention": {"num_query_groups": 2, "output_gate": True, "qkv_bias": True}},
    "sliding window in three of five layers, rope in some": {
        "attention": {"window": 3, "softmax": "learnable"},
        "window_pattern": (True, False, True),
        "rope_pattern": (True, True, False),
        "num_layers": 5,
    },
    "qk-norm and off-by-one softmax": {
        "attention": {"qk_norm": NormConfig(kind="rmsnorm"), "softmax": "off-by-one", "scale": 1.0}
    },
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_ragged_batch_with_caches_continues_like_the_whole_forward_pass_of_each_prompt(name):
    model, parameters = model_of(config_of(**CONFIGS[name]))
    texts = generate(model, parameters, PROMPTS, GREEDY)
    values = {path: np.asarray(value) for path, value in flatten(parameters).items()}
    expected = [decode(model.config, values, prompt, GREEDY.max_new_tokens) for prompt in PROMPTS]
    assert texts == expected
    assert len({tuple(text) for text in texts}) == len(PROMPTS)  # the prompts matter


@pytest.fixture(scope="module")
def small():
    model, parameters = model_of(config_of(attention={"num_query_groups": 2}))
    return Generator(model, parameters)


def test_a_row_alone_in_its_batch_draws_the_same_text(small):
    config = SamplingConfig(temperature=1.5, top_k=30, top_p=0.95, seed=11, max_new_tokens=20)
    whole = small(PROMPTS, config)
    for row, prompt in enumerate(PROMPTS):
        assert small([prompt], config, row_seeds=[row]) == [whole[row]]


def test_equal_seeds_draw_equal_text_and_others_other_text(small):
    config = SamplingConfig(temperature=2.0, max_new_tokens=20, seed=1)
    first = small(PROMPTS, config)
    assert small(PROMPTS, config) == first
    assert small(PROMPTS, dataclasses.replace(config, seed=2)) != first
    same_prompt = small([[4, 5]] * 3, config)
    assert len({tuple(text) for text in same_prompt}) == 3


def test_a_longer_continuation_begins_with_the_shorter_one(small):
    config = SamplingConfig(temperature=1.0, max_new_tokens=70, seed=1)
    long = small(PROMPTS, config)
    short = small(PROMPTS, dataclasses.replace(config, max_new_tokens=9))
    assert [text[:9] for text in long] == short
    assert [len(text) for text in small(PROMPTS, dataclasses.replace(config, max_new_tokens=1))] == [1] * 4


def test_a_stop_token_ends_its_row_only_and_is_not_part_of_the_text(small):
    free = small(PROMPTS, GREEDY)
    stop = free[1][4]
    stopped = small(PROMPTS, dataclasses.replace(GREEDY, stop_tokens=(stop, VOCAB + 5)))
    for text, whole in zip(stopped, free, strict=True):
        assert text == (whole[: whole.index(stop)] if stop in whole else whole)
    assert stop in free[1]
    assert any(stop not in text for text in free)


def test_decoding_ends_when_every_row_has(small):
    endless = dataclasses.replace(GREEDY, max_new_tokens=5000, stop_tokens=tuple(range(VOCAB)))
    assert small(PROMPTS, endless) == [[], [], [], []]


def test_streamed_tokens_are_the_text_in_blocks(small):
    config = SamplingConfig(max_new_tokens=40, seed=3)
    blocks = []
    texts = small(PROMPTS, config, on_tokens=blocks.append)
    assert texts == small(PROMPTS, config)
    assert [len(block[0]) for block in blocks] == [1, 16, 16, 7]
    for row, text in enumerate(texts):
        assert [token for block in blocks for token in block[row]] == text


def test_programs_are_compiled_once_per_rounded_length():
    model, parameters = model_of(config_of())
    generator = Generator(model, parameters)
    for prompt, count, seed in (([1], 4, 0), ([1, 2, 3], 30, 1), ([4] * 16, 48, 2)):
        generator([prompt], SamplingConfig(max_new_tokens=count, seed=seed))
    assert generator._prefill._cache_size() == 1
    assert generator._decode._cache_size() == 1
    assert [rounded(n, 16) for n in (1, 16, 17, 129, 1000, 1025)] == [16, 16, 32, 160, 1024, 1280]


def test_loaded_parameters_replace_the_old_ones():
    config = config_of()
    (model, old), (_, new) = model_of(config, 0), model_of(config, 1)
    generator = Generator(model, old)
    before = generator(PROMPTS, GREEDY)
    generator.load(new)
    assert generator(PROMPTS, GREEDY) == generate(model, new, PROMPTS, GREEDY) != before


@pytest.mark.parametrize("kv_heads", [4, 2], ids=["kv heads split", "kv heads replicated"])
@pytest.mark.parametrize(
    "mesh",
    [{"data": 2, "tensor": 4}, {"data": 2, "fsdp": 2, "context": 2}],
    ids=lambda sizes: "-".join(sizes),
)
def test_a_mesh_generates_what_one_device_generates(mesh, kv_heads):
    model, parameters = model_of(config_of(attention={"num_query_groups": kv_heads}, max_positions=64))
    config = SamplingConfig(temperature=1.3, top_p=0.9, max_new_tokens=10, seed=4)
    prompts = PROMPTS[:3]  # not a multiple of the data shards
    expected = generate(model, parameters, prompts, config)
    mesh = build_mesh(MeshConfig(**mesh))
    assert (
        Generator(model, parameters, mesh=mesh, rules=ShardingConfig().build())(prompts, config) == expected
    )


@pytest.mark.parametrize("way", ["fixed", "ragged"])
def test_experts_on_a_mesh_generate_what_one_device_generates(way):
    """Whatever way is named: in decoding, tokens are split as neither of them needs."""
    moe = MoEConfig(
        experts=8,
        top_k=2,
        mlp=MLPConfig(features=24, activation="silu", gated=True),
        dispatch=DispatchConfig(way=way),
    )
    model, parameters = model_of(config_of(mlp=None, moe=moe))
    folded = {"experts": Rule(parameters=("expert", "tensor"), activations=("expert", "tensor"))}
    rules = ShardingConfig(rules={**folded, "expert_mlp": Rule()}).build()
    mesh = build_mesh(MeshConfig(data=2, expert=2, tensor=2))
    texts = Generator(model, parameters, mesh=mesh, rules=rules)(PROMPTS[:3], GREEDY)
    assert texts == generate(model, parameters, PROMPTS[:3], GREEDY)


def test_the_mesh_in_force_is_used_and_the_caches_are_split_over_it():
    model, parameters = model_of(config_of())
    mesh = build_mesh(MeshConfig(data=2, tensor=4))
    with use_mesh(mesh, ShardingConfig(sequence_parallel=False).build()):
        generator = Generator(model, parameters)
        texts = generator(PROMPTS, GREEDY)
        state = generator._prefill(
            generator._parameters,
            {"tokens": jnp.ones((4, 16), jnp.int32)},
            Request(
                seed=jnp.uint32(0),
                row_seeds=jnp.zeros(4, jnp.uint32),
                rows=jnp.zeros((4, 0), jnp.int32),
                lengths=jnp.ones(4, jnp.int32),
                limit=jnp.int32(8),
            ),
            slots=64,
            config=GREEDY,
        )
    assert texts == generate(model, parameters, PROMPTS, GREEDY)
    for leaf in jax.tree.leaves(state.caches):
        assert leaf.addressable_shards[0].data.size == leaf.size / 8


@pytest.mark.parametrize(
    ("prompts", "sentence"),
    [
        ([[1], []], r"prompt 1 is empty"),
        ([[1, VOCAB]], rf"prompt 0 has the token id {VOCAB}; the model's ids are 0 to {VOCAB - 1}"),
        ([[-1]], r"prompt 0 has the token id -1"),
        ([[1] * 29], r"prompt 0 has 29 tokens.*= 12 that is 41, but the model has only 40 learned positions"),
    ],
)
def test_a_prompt_that_cannot_be_continued_is_refused_with_a_sentence(prompts, sentence):
    model, parameters = model_of(config_of(max_positions=40))
    with pytest.raises(InputError, match=sentence):
        generate(model, parameters, prompts, GREEDY)


def test_no_prompts_give_no_texts(small):
    assert small([], GREEDY) == []
