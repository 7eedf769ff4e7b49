"""Sizes and costs: Megatron's own parameter counts, the published totals, and its formula for FLOPs."""

import dataclasses

import jax
import pytest

from mjx.batch import BatchArray, token_batch
from mjx.errors import InputError
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.moe import MoEConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.parameter import parameters_of
from mjx.models.common.rope import RoPEConfig
from mjx.models.family import abstract_model
from mjx.models.gpt import PUBLISHED, GPTConfig
from mjx.trees import flatten


def megatron(hidden_size: int, *, num_layers: int = 2, **options) -> GPTConfig:
    """What Megatron builds by default: LayerNorm, biases, an MLP of four times the width, four heads."""
    return GPTConfig(
        num_layers=num_layers,
        hidden_size=hidden_size,
        vocab_size=100,
        attention=AttentionConfig(num_heads=4, qkv_bias=True, output_bias=True),
        mlp=MLPConfig(features=4 * hidden_size, bias=True),
        **options,
    )


def blocks(config: GPTConfig) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(parameters_of(abstract_model(config))["decoder"]))


def test_megatrons_test_models_have_its_parameter_counts():
    assert megatron(12, max_positions=4).num_parameters() == 6_240  # test_gpt_model
    assert blocks(megatron(12, num_layers=1)) == 1_884  # test_transformer_layer
    assert blocks(megatron(64)) + 2 * 64 == 100_096  # test_transformer_block
    wide = GPTConfig(  # test_heterogeneous_gpt_model
        num_layers=2,
        hidden_size=4096,
        vocab_size=128_256,
        attention=AttentionConfig(num_heads=32, num_query_groups=8, rope=RoPEConfig()),
        mlp=MLPConfig(features=14336, activation="silu", gated=True),
        norm=NormConfig(kind="rmsnorm"),
    )
    assert wide.num_parameters() == 1_486_901_248


TOTALS = {
    "llama3-8b": 8_030_261_248,
    "llama3-70b": 70_553_706_496,
    "llama3.1-405b": 405_853_388_800,
    "llama3.2-1b": 1_235_814_400,
    "mistral-7b-v0.3": 7_248_023_552,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-0.6b": 596_049_920,
    "qwen3-8b": 8_190_735_360,
    "phi3-mini-4k": 3_821_079_552,
    "pythia-160m": 162_322_944,
    "pythia-1.4b": 1_414_647_808,
    "pythia-6.9b": 6_857_302_016,
    "pythia-12b": 11_846_072_320,
    "neox-20b": 20_554_567_680,
    "olmo2-1b": 1_484_916_736,
    "olmo2-7b": 7_298_617_344,
    "olmo2-13b": 13_716_198_400,
    "gemma2-2b": 2_614_341_888,
    "gemma2-9b": 9_241_705_984,
    "gemma2-27b": 27_227_128_320,
    "gemma3-1b": 999_885_952,
    "mixtral-8x7b": 46_702_792_704,
    "mixtral-8x22b": 140_630_071_296,
    "qwen1.5-moe-a2.7b": 14_315_784_192,
    "qwen2-57b-a14b": 57_408_658_944,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-235b-a22b": 235_093_634_560,
    "gpt-oss-20b": 20_914_757_184,
    "gpt-oss-120b": 116_829_156_672,
    "olmoe-1b-7b": 6_919_161_856,
}


@pytest.mark.parametrize("name", TOTALS)
def test_published_models_have_their_published_size(name):
    assert PUBLISHED[name].num_parameters() == TOTALS[name]


ACTIVE = {
    "mixtral-8x7b": (12.9, 0.05),
    "mixtral-8x22b": (39, 0.5),
    "qwen1.5-moe-a2.7b": (2.7, 0.05),
    "qwen2-57b-a14b": (14, 0.5),
    "qwen3-30b-a3b": (3.3, 0.1),  # 3.35, rounded down
    "qwen3-235b-a22b": (22, 0.5),
    "olmoe-1b-7b": (1.3, 0.05),
    "gpt-oss-20b": (3.61, 0.005),
    "gpt-oss-120b": (5.13, 0.005),
}
"""In billions, as published, and how much they were rounded."""


@pytest.mark.parametrize("preset", ACTIVE)
def test_a_token_uses_as_many_parameters_as_is_published(preset):
    config, (billions, rounding) = PUBLISHED[preset], ACTIVE[preset]
    # The card of gpt-oss leaves the token table out.
    uncounted = config.vocab_size * config.hidden_size if preset.startswith("gpt-oss") else 0
    active = config.num_active_parameters() - uncounted
    assert active / 1e9 == pytest.approx(billions, abs=rounding)
    # And exactly: of every tensor of experts the share that a token takes.
    moe, used = config.moe, 0
    for path, leaf in flatten(parameters_of(abstract_model(config))).items():
        held = ".experts." in path
        used += leaf.size * moe.top_k // moe.experts if held else leaf.size
    padding = 2 * (config.padded_vocab_size - config.vocab_size) * config.hidden_size
    assert config.num_active_parameters() == used - padding


def test_a_model_without_experts_uses_all_its_parameters():
    config = PUBLISHED["qwen3-0.6b"]
    assert config.num_active_parameters() == config.num_parameters()


def test_nemotron_and_its_pruned_models_have_the_sizes_of_their_papers():
    billions = {"nemotron4-15b": 15.6, "minitron-4b": 4.19, "minitron-8b": 8.27}
    for name, size in billions.items():
        assert PUBLISHED[name].num_parameters() / 1e9 == pytest.approx(size, abs=0.05 if size > 10 else 0.005)
    assert blocks(PUBLISHED["nemotron4-15b"]) / 1e9 == pytest.approx(12.5, abs=0.05)


def test_gpt_with_megatrons_padded_vocabulary_has_its_size():
    padded = {
        name: dataclasses.replace(PUBLISHED[name], vocab_size=50_304) for name in ("gpt2-355m", "gpt3-175b")
    }
    assert padded["gpt2-355m"].num_parameters() == 354_871_296
    assert padded["gpt3-175b"].num_parameters() == 174_604_836_864


SMALL = {
    "plain": megatron(16),
    "everything": GPTConfig(
        num_layers=4,
        hidden_size=24,
        vocab_size=77,
        attention=AttentionConfig(
            num_heads=4,
            num_query_groups=2,
            head_dim=8,
            qk_norm=NormConfig(kind="rmsnorm"),
            rope=RoPEConfig(),
            softmax="learnable",
            output_gate=True,
            window=4,
        ),
        mlp=MLPConfig(features=40, activation="silu", gated=True),
        norm=NormConfig(kind="rmsnorm"),
        window_pattern=(True, False),
    ),
}


def megatron_flops(config: GPTConfig, rows: int, sequence: int) -> float:
    """Of forward and backward, by Megatron's terms: projections, core (the causal half), MLP, logits."""
    tokens, hidden = rows * sequence, config.hidden_size
    heads, groups, head_dim = config.attention.resolve(config.hidden_size).dims
    queries, keys = heads * head_dim, groups * head_dim
    inputs = queries * (2 if config.attention.output_gate else 1) + 2 * keys
    layer = 6 * tokens * hidden * (inputs + queries) + 6 * rows * sequence**2 * queries
    layer += 6 * tokens * hidden * config.mlp.features * (3 if config.mlp.gated else 2)
    return config.num_layers * layer + 6 * tokens * hidden * config.vocab_size


@pytest.mark.parametrize("name", ["gpt2-124m", "gpt3-175b", "llama3-8b", "qwen3-0.6b", "qwen2.5-7b"])
def test_flops_equal_megatrons_formula(name):
    config, rows, sequence = PUBLISHED[name], 3, 1024
    assert config.flops_per_token(sequence) * rows * sequence == megatron_flops(config, rows, sequence)


def test_windowed_layers_cost_less():
    config = SMALL["everything"]
    wide = dataclasses.replace(config, attention=dataclasses.replace(config.attention, window=None))
    assert config.flops_per_token(64) < wide.flops_per_token(64)
    # Two of the four layers have a window of 4: they see 4 (1 - 4/128) tokens instead of 32.
    saved = 2 * 3 * 4 * 32 * (32 - 4 * (1 - 4 / 128))
    assert wide.flops_per_token(64) - config.flops_per_token(64) == pytest.approx(saved)


EXPERTS = MoEConfig(experts=4, mlp=MLPConfig(features=4))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_layers": 0}, r"model\.num_layers = 0 must be positive"),
        ({"hidden_size": -4}, r"model\.hidden_size = -4 must be positive"),
        ({"vocab_size": 0}, r"model\.vocab_size = 0 must be positive"),
        ({"vocab_divisor": 0}, r"model\.vocab_divisor = 0 must be positive"),
        ({"loss_chunks": 0}, r"model\.loss_chunks = 0 must be positive"),
        ({"window_pattern": ()}, r"model\.window_pattern is empty; it needs at least one true or false"),
        ({"rope_pattern": ()}, r"model\.rope_pattern is empty"),
        ({"max_positions": 0}, r"model\.max_positions = 0 must be positive, or null for none"),
        ({"dropout": 1.5}, r"model\.dropout = 1\.5 must be at least 0 and below 1"),
        (
            {"hidden_size": 18, "attention": AttentionConfig(num_heads=4)},
            r"num_heads = 4 does not divide hidden_size = 18; choose a divisor, or say",
        ),
        ({"init_std": -0.1}, r"model\.init_std = -0\.1 must be"),
        ({"z_loss": -1.0}, r"model\.z_loss = -1\.0 must be"),
        ({"embedding_scale": 0.0}, r"model\.embedding_scale = 0\.0 must be positive"),
        ({"embedding_dropout": 1.0}, r"model\.embedding_dropout = 1\.0 must be at least 0 and below 1"),
        ({"logit_soft_cap": 0.0}, r"model\.logit_soft_cap = 0\.0 must be positive, or null for none"),
        ({"window_rope": RoPEConfig()}, r"model\.window_rope needs attention\.window, which is null"),
        (
            {"attention": AttentionConfig(num_heads=4, window=2), "window_rope": RoPEConfig(percent=0.25)},
            r"rope\.percent = 0\.25 of head_dim = 4 rotates 1 features",
        ),
        ({"moe_pattern": ()}, r"model\.moe_pattern is empty; it needs at least one true or false"),
        (
            {"moe_pattern": (True, False)},
            r"model\.moe_pattern and model\.dense_layers need model\.moe, which",
        ),
        ({"dense_layers": 1}, r"model\.moe_pattern and model\.dense_layers need model\.moe, which is null"),
        ({"moe": EXPERTS, "dense_layers": 9}, r"model\.dense_layers = 9 must be from 0 to num_layers = "),
        ({"moe": EXPERTS, "dense_layers": -1}, r"model\.dense_layers = -1 must be from 0 to num_layers = "),
        (
            {"moe": EXPERTS, "dense_layers": 2},
            r"model\.moe is given, but no layer has experts: .*dense_layers = 2 of num_layers = 2",
        ),
        (
            {"moe": EXPERTS, "moe_pattern": (False,)},
            r"model\.moe is given, but no layer has experts: model\.moe_pattern = \[False\]",
        ),
        ({"mlp": None}, r"model\.mlp is null, but layer 0 has no experts, and needs it"),
        (
            {"mlp": None, "moe": EXPERTS, "moe_pattern": (True, False)},
            r"model\.mlp is null, but layer 1 has no experts, and needs it",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence):
        dataclasses.replace(SMALL["plain"], **options)


@pytest.mark.parametrize(
    ("pattern", "dense", "layers"),
    [
        ((True,), 0, (True, True, True, True, True)),
        ((True,), 2, (False, False, True, True, True)),
        ((True, False), 0, (True, False, True, False, True)),
        ((False, True), 2, (False, False, False, True, False)),
    ],
)
def test_experts_are_where_the_pattern_leaves_them_behind_the_dense_layers(pattern, dense, layers):
    config = dataclasses.replace(
        SMALL["plain"], num_layers=5, moe=EXPERTS, moe_pattern=pattern, dense_layers=dense
    )
    assert config.moe_layers == layers
    assert tuple(sublayer.mixer.name == "moe" for sublayer in config.pattern[1::2]) == layers


def test_heads_of_an_odd_width_cannot_rotate():
    with pytest.raises(InputError, match=r"rope\.percent = 1\.0 of head_dim = 3 rotates 3 features"):
        dataclasses.replace(
            SMALL["plain"], hidden_size=12, attention=AttentionConfig(num_heads=4, rope=RoPEConfig())
        )


@pytest.mark.parametrize(
    ("options", "sequence", "sentence"),
    [
        ({"max_positions": 8}, 16, r"data\.sequence_length = 16 is beyond model\.max_positions = 8"),
        ({"loss_chunks": 3}, 16, r"model\.loss_chunks = 3 does not divide data\.sequence_length = 16"),
    ],
)
def test_rows_that_do_not_fit_are_refused(options, sequence, sentence):
    with pytest.raises(InputError, match=sentence):
        dataclasses.replace(SMALL["plain"], **options).check_batch(token_batch(2, sequence))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"labels": None},
            "the batches have no array 'labels', which the model needs (they have tokens, loss_mask); "
            "data.kind is another model's",
        ),
        (
            {"pixels": BatchArray(shape=(2, 8), dtype="uint8", axes=("batch", "sequence"))},
            "the batches have an array 'pixels', which the model does not take (it takes tokens, labels, "
            "loss_mask, positions, segment_ids); data.kind is another model's",
        ),
        (
            {"tokens": BatchArray(shape=(2, 8), dtype="float32", axes=("batch", "sequence"))},
            "batch array 'tokens' has dtype float32; the model takes int32",
        ),
        (
            {"labels": BatchArray(shape=(2, 7), dtype="int32", axes=("batch", "sequence"))},
            "batch array 'labels' has the shape (2, 7); that of 'tokens' is (2, 8)",
        ),
    ],
)
def test_a_batch_of_another_kind_is_refused(change, sentence):
    arrays = {name: array for name, array in (token_batch(2, 8) | change).items() if array is not None}
    with pytest.raises(InputError) as refused:
        SMALL["plain"].check_batch(arrays)
    assert str(refused.value) == sentence


def test_the_flops_of_a_batch_are_those_of_its_tokens():
    config = SMALL["plain"]
    assert config.flops(token_batch(3, 16)) == 48 * config.flops_per_token(16)


def test_the_second_half_of_a_pattern_has_no_window():
    windows = [s.mixer.window for s in SMALL["everything"].sublayers() if s.mixer.name == "attention"]
    assert windows == [4, None, 4, None]


def test_the_heads_of_a_published_size_can_be_changed():
    config = dataclasses.replace(
        PUBLISHED["gpt2-124m"], hidden_size=512, attention=AttentionConfig(num_heads=8)
    )
    attention = config.sublayers()[0].mixer
    assert isinstance(attention, AttentionConfig)
    assert attention.dims == (8, 8, 64)
    narrow = dataclasses.replace(PUBLISHED["gpt2-124m"], hidden_size=384)
    assert narrow.sublayers()[0].mixer.dims == (12, 12, 32)
