"""Megatron's settings as configs, in the spelling of arguments and in that of TransformerConfig."""

import dataclasses

import pytest

from mjx.errors import InputError
from mjx.models.common.rope import RoPEConfig, RoPEScaling
from mjx.models.gpt.published import PUBLISHED
from mjx.models.interop.megatron.settings import check_settings
from mjx.models.megatron import read_settings, settings_of

SMALL = {"num_layers": 4, "hidden_size": 32, "num_attention_heads": 4, "vocab_size": 100}
ROTARY = {**SMALL, "position_embedding_type": "rope"}
CORE = {**ROTARY, "bias_activation_fusion": False}


def read(settings, **more):
    family, config = read_settings({**settings, **more}, "args.json")
    assert family == "gpt"
    return config


def test_arguments_have_the_defaults_of_megatron_lm():
    config = read(SMALL, max_position_embeddings=64)
    assert config.max_positions == 64
    assert config.tie_embeddings
    assert config.mlp.features == 128
    assert config.mlp.activation == "gelu-tanh"  # the kernel that adds the bias approximates
    assert config.mlp.bias
    assert config.attention.qkv_bias
    assert config.attention.output_bias
    assert (config.dropout, config.attention.dropout) == (0.1, 0.1)
    assert config.dtype == "float32"
    assert read(ROTARY, swiglu=True, hidden_size=96).mlp.features == 256


def test_a_namespace_that_has_every_program_s_defaults_is_a_gpt_s():
    """Megatron-LM has one parser: what other programs would read stands in a GPT's checkpoint too."""
    others = {
        "bert_binary_head": True,
        "mask_prob": 0.15,
        "encoder_num_layers": 2,
        "decoder_num_layers": None,
    }
    others |= {"encoder_seq_length": 1024, "decoder_seq_length": None, "retro_add_retriever": False}
    sizes = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "vocab_size": 64}
    family, _ = read_settings(sizes | others | {"max_position_embeddings": 32}, "args")
    assert family == "gpt"
    family, _ = read_settings(
        sizes | others | {"max_position_embeddings": 32, "bert_binary_head": False}, "args"
    )
    assert family == "bert"


def test_fields_of_transformer_config_have_those_of_megatron_core():
    config = read(CORE, num_query_groups=2)
    assert not config.tie_embeddings
    assert config.mlp.activation == "gelu"
    assert config.attention.num_query_groups == 2
    assert read(ROTARY, num_query_groups=2).attention.num_query_groups is None  # an argument unused


def test_both_spellings_say_the_same():
    arguments = {
        **{"--num-layers": 4, "--hidden-size": 32, "--num-attention-heads": 4, "--vocab-size": 100},
        **{"--group-query-attention": True, "--num-query-groups": 2, "--ffn-hidden-size": 48},
        **{"--swiglu": True, "--normalization": "RMSNorm", "--norm-epsilon": 1e-6, "--qk-layernorm": True},
        **{"--apply-layernorm-1p": True, "--disable-bias-linear": True, "--position-embedding-type": "rope"},
        **{
            "--untie-embeddings-and-output-weights": True,
            "--rotary-base": 500000,
            "--use-rope-scaling": True,
        },
    }
    fields = {
        **{"num_layers": 4, "hidden_size": 32, "num_attention_heads": 4, "num_query_groups": 2},
        **{"ffn_hidden_size": 48, "gated_linear_unit": True, "normalization": "RMSNorm"},
        **{"activation_func": "<function silu at 0x7f3d2bf3cc20>", "layernorm_epsilon": 1e-6},
        **{"qk_layernorm": True, "layernorm_zero_centered_gamma": True, "add_bias_linear": False},
        "model": {
            **{"position_embedding_type": "rope", "rotary_base": 500000, "rope_scaling": True},
            **{"share_embeddings_and_output_weights": False, "vocab_size": 100},
        },
    }
    config = read(arguments)
    assert config == read(fields)
    assert config.attention.qk_norm == config.norm
    assert config.attention.rope == RoPEConfig(base=500000, scaling=RoPEScaling(kind="llama3", factor=8))


def test_two_spellings_that_contradict_each_other_are_refused():
    with pytest.raises(
        InputError, match=r'"layernorm_epsilon": 1e-06 and "norm_epsilon": 1e-05, which contrad'
    ):
        read(ROTARY, norm_epsilon=1e-5, layernorm_epsilon=1e-6)


def test_layers_are_said_by_a_period_or_a_list():
    config = read(ROTARY, window_size="(127,0)", window_attn_skip_freq=2, no_rope_freq="[0,1]*2")
    assert config.attention.window == 128
    assert config.window_pattern == (True, False)
    assert config.rope_pattern == (True, False)
    assert read(ROTARY, window_size=[-1, 0]).attention.window is None
    for name, value in (("no_rope_freq", "__import__('os')"), ("window_attn_skip_freq", "[1]*9999999")):
        with pytest.raises(InputError, match=f'"{name}"'):
            read(ROTARY, window_size=[4, 0], **{name: value})


def test_the_vocabulary_is_that_of_the_tokenizer_where_it_is_said():
    config = read(ROTARY, vocab_size=50257, padded_vocab_size=51200, tensor_model_parallel_size=8)
    assert (config.vocab_size, config.padded_vocab_size) == (50257, 51200)
    assert read(ROTARY, vocab_size=None, padded_vocab_size=51200).vocab_size == 51200


@pytest.mark.parametrize(
    "changes",
    [
        {"window_size": [4, 0], "window_attn_skip_freq": [1, 1, 0, 1]},
        {"no_rope_freq": 4, "softmax_type": "learnable", "attention_output_gate": True, "softmax_scale": 0.5},
        {"quick_geglu": True, "glu_linear_offset": 1.0, "activation_func_clamp_value": 7.0},
        {"activation_func": "relu", "add_bias_linear": False, "add_qkv_bias": True},
        {"activation_func": "gelu", "gated_linear_unit": True, "bias_gelu_fusion": False},
        {"position_embedding_type": "none", "init_method_std": 0.006, "recompute_granularity": "full"},
        {"position_embedding_type": "yarn", "rotary_scaling_factor": 32.0, "mscale": 0.7, "bf16": True},
        {"rotary_interleaved": True, "rotary_percent": 0.5, "rotary_seq_len_interpolation_factor": 2},
    ],
)
def test_options_survive_the_way_there_and_back(changes):
    config = read(ROTARY, **changes)
    assert config != read(ROTARY)
    check_settings(config, settings_of(config), "args.json")
    attention = config.attention.resolve(config.hidden_size)
    returned = read(settings_of(config))
    assert returned.attention == dataclasses.replace(
        attention,
        num_query_groups=None,
        rope=returned.attention.rope,
    )
    assert returned.mlp == config.mlp
    assert (returned.window_pattern, returned.rope_pattern) == (config.window_pattern, config.rope_pattern)


@pytest.mark.parametrize("name", ["gpt2-124m", "llama3.1-8b", "qwen3-8b", "nemotron4-15b"])
def test_published_sizes_have_arguments(name):
    config = PUBLISHED[name]
    check_settings(config, settings_of(config), "args.json")
    assert read(settings_of(config)).num_parameters() == config.num_parameters()


def test_all_that_mjx_does_not_compute_is_named_at_once():
    with pytest.raises(InputError) as error:
        read(ROTARY, mtp_num_layers=1, multi_latent_attention=True, normalization="Other", qk_l2_norm=False)
    said = str(error.value)
    assert 'args.json has "mtp_num_layers": 1, which mjx does not compute' in said
    assert '"multi_latent_attention": true' in said
    assert 'args.json has "normalization": "Other"; known are LayerNorm, RMSNorm' in said
    assert "qk_l2_norm" not in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": None}, 'has no "num_layers"'),
        ({"vocab_size": None}, 'has neither "vocab_size" nor "padded_vocab_size"'),
        ({"position_embedding_type": None}, 'has no "max_position_embeddings"'),
        ({"swiglu": True, "squared_relu": True}, "has swiglu and squared_relu, of which only one"),
        ({"activation_func": "<function main.<locals>.<lambda> at 0x7f>"}, 'has "activation_func"'),
        ({"window_size": [4, 4]}, r"should be \[tokens, 0\]"),
        ({"use_rope_scaling": True, "rotary_seq_len_interpolation_factor": 2}, "in one way"),
        ({"num_attention_heads": 5}, "describes a model that mjx cannot build"),
        ({"vision_pretraining": True}, "a model of a kind that mjx does not read yet"),
    ],
)
def test_what_cannot_be_read_is_said(changes, message):
    with pytest.raises(InputError, match=f"args.json .*{message}"):
        read(ROTARY, **changes)


def test_a_model_that_megatron_lm_cannot_say_has_no_arguments():
    config = dataclasses.replace(read(ROTARY), norm_placement="both", logit_soft_cap=30.0)
    with pytest.raises(
        InputError, match=r'no arguments for model.logit_soft_cap = 30.0, model.norm_placement = "both"'
    ):
        settings_of(config)


def test_settings_of_another_model_are_refused_by_every_name_that_differs():
    config = read(ROTARY, norm_epsilon=1e-6)
    check_settings(config, {"padded_vocab_size": 128, "num_layers": 4}, "args.json")
    with pytest.raises(InputError) as error:
        check_settings(
            config,
            {"num_layers": 5, "layernorm_epsilon": 1e-5, "swiglu": True, "padded_vocab_size": 64},
            "args.json",
        )
    assert str(error.value) == (
        "args.json says that the model was trained with padded_vocab_size = 64, but model.vocab_size = 100; "
        "num_layers = 5, but model.num_layers asks for 4; "
        "swiglu = True, but model.mlp.activation asks for gelu-tanh, model.mlp.gated asks for False; "
        "norm_epsilon = 1e-05, but model.norm.epsilon asks for 1e-06"
    )
