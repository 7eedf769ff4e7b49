"""config.json as the hub has it for well-known models, and what is refused."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from mjx.errors import InputError
from mjx.models.common.rope import RoPEConfig
from mjx.models.gpt.config_keys import canonical
from mjx.models.gpt.huggingface import ARCHITECTURES
from mjx.models.interop.architectures import find_architecture, fitting_architecture

WHOLE = [a for a in ARCHITECTURES if not a.class_name.endswith("TextModel")]
"""Those that are only inside of others are held against transformers there."""

GOLDENS = Path(__file__).parents[2] / "goldens" / "huggingface"
PUBLISHED = {
    name: (model["config"], model["parameters"])
    for name, model in json.loads((GOLDENS / "published.json").read_text()).items()
}
"""config.json, and how many parameters the model is known to have."""
GPT2 = PUBLISHED["gpt2"][0]
PYTHIA = PUBLISHED["Pythia 160M"][0]
SMOLLM2 = PUBLISHED["SmolLM2 135M"][0]
LLAMA2 = PUBLISHED["Llama 2 7B"][0]
LLAMA31 = PUBLISHED["Llama 3.1 8B"][0]
MISTRAL = PUBLISHED["Mistral 7B v0.1"][0]
MISTRAL3 = PUBLISHED["Mistral 7B v0.3"][0]
QWEN25 = PUBLISHED["Qwen2.5 0.5B"][0]
QWEN3 = PUBLISHED["Qwen3 0.6B"][0]
PHI3 = PUBLISHED["Phi-3 mini 4k"][0]
PHI3_LONG = PUBLISHED["Phi-3 mini 128k"][0]
PHI4_MINI = PUBLISHED["Phi-4 mini"][0]
OLMO2 = PUBLISHED["OLMo 2 7B"][0]
MINITRON = PUBLISHED["Minitron 4B"][0]
GEMMA2 = PUBLISHED["Gemma 2 2B"][0]
GEMMA3 = PUBLISHED["Gemma 3 1B"][0]


def ours(theirs):
    return find_architecture(theirs)[1].config.to_ours(theirs, "config.json")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_has_its_number_of_parameters_and_survives_the_way_back(name):
    theirs, parameters = PUBLISHED[name]
    config = ours(theirs)
    assert config.num_parameters() == parameters
    assert fitting_architecture(config, theirs["model_type"]).model_type == theirs["model_type"]


def test_sliding_windows_are_those_of_the_layers_that_have_them():
    assert ours(MISTRAL).attention.window == 4096
    assert ours(MISTRAL3).attention.window is None
    assert ours(QWEN25).attention.window is None
    used = ours(QWEN25 | {"use_sliding_window": True, "sliding_window": 100})
    assert [layer.mixer.window for layer in used.sublayers()[::2]] == [None] * 21 + [100] * 3
    assert ours(QWEN25 | {"use_sliding_window": True, "sliding_window": None}).attention.window is None
    gemma = [layer.mixer.window for layer in ours(GEMMA3).sublayers()[::2]]
    assert gemma == ([512] * 5 + [None]) * 4 + [512] * 2
    assert [layer.mixer.rope.base for layer in ours(GEMMA3).sublayers()[10:14:2]] == [1e6, 1e4]


OLD_AND_NEW = [
    (LLAMA31, {"rope_parameters": {**LLAMA31["rope_scaling"], "rope_theta": 500000.0}}),
    (LLAMA31, {"rope_theta": 500000.0, "rope_parameters": LLAMA31["rope_scaling"]}),
    (
        LLAMA2 | {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
    ),
    (PYTHIA, {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.25, "rope_theta": 1e4}}),
    (PYTHIA, {}),
    (PYTHIA, {"rotary_emb_base": 1e4, "rope_theta": 1e4, "rotary_pct": 0.25, "partial_rotary_factor": 0.25}),
    (MINITRON, {"rope_parameters": {"rope_theta": 1e4}}),
    (PHI3_LONG, {"rope_scaling": PHI3_LONG["rope_scaling"] | {"type": "su"}}),
    (
        GEMMA3,
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            }
        },
    ),
    (GEMMA3, {}),
]


@pytest.mark.parametrize(("theirs", "spelling"), OLD_AND_NEW)
def test_old_and_new_spellings_of_rope_mean_the_same(theirs, spelling):
    words = ("rope_theta", "rope_scaling", "rope_local_base_freq", "rotary_emb_base", "rotary_pct")
    words += ("partial_rotary_factor",)
    other = {key: value for key, value in theirs.items() if key not in words} | spelling
    assert ours(other) == ours(theirs)


def test_a_missing_key_means_what_it_means_to_transformers():
    bare = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    bare += ("vocab_size",)

    def of(theirs):
        return ours({key: theirs[key] for key in bare if key in theirs})

    assert (of(MISTRAL).attention.num_query_groups, of(MISTRAL).attention.window) == (8, 4096)
    assert of(LLAMA31).attention.num_query_groups is None
    assert of(LLAMA2).norm.epsilon == 1e-6
    assert of(OLMO2).norm.epsilon == 1e-5
    assert of(QWEN3 | {"num_attention_heads": 64}).attention.head_dim == 128
    assert of(QWEN3 | {"num_attention_heads": 64}).attention.num_query_groups == 32
    assert of(GEMMA2).tie_embeddings
    assert of(GEMMA2).attention.soft_cap == 50
    assert of(GEMMA2 | {"hidden_act": "relu"}).mlp.activation == "gelu-tanh"
    assert of(MINITRON).attention.rope == RoPEConfig(percent=0.5)
    assert of(PYTHIA).attention.rope == RoPEConfig(percent=0.25)
    assert of(PYTHIA).parallel_residual
    # null is a value of its own: as many as query heads.
    assert ours(MISTRAL | {"num_key_value_heads": None}).attention.num_query_groups is None


WITHOUT_MEANING = {
    "predict_special_tokens": True,
    "output_past": True,
    "_num_labels": 1,
    "xla_device": "cpu",
    "keys_to_ignore_at_inference": ["past_key_values"],
    "custom_pipelines": {"text-generation": {"impl": "own.Pipeline"}},
    "max_sequence_length": 2048,
    "tokenizer_model_max_length": 2048,
    "tokenizer_padding_side": "right",
    "pad_token": "[PAD]",
    "_flash_attn_2_enabled": True,
    "max_new_tokens": 256,
    "language": ["en"],
}
"""Keys that files of any architecture have had."""


@pytest.mark.parametrize("architecture", WHOLE, ids=lambda architecture: architecture.model_type)
def test_keys_that_change_nothing_change_nothing(architecture):
    theirs = next(
        theirs for theirs, _ in PUBLISHED.values() if theirs["model_type"] == architecture.model_type
    )
    assert ours(theirs | WITHOUT_MEANING) == ours(theirs)


REFUSED = [
    (LLAMA2, {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
    (LLAMA2, {"rope_scaling": "linear"}, "rope_scaling"),
    (LLAMA2, {"rope_scaling": {"type": "linear"}}, "factor"),
    (LLAMA2, {"rope_scaling": {"type": "linear", "factor": math.inf}}, r"rope\.scaling\.factor = inf"),
    (
        LLAMA2,
        {"rope_scaling": {"type": "yarn", "factor": math.e, "mscale": 1, "mscale_all_dim": -10}},
        "mscale_all_dim",
    ),
    (LLAMA2, {"rope_scaling": {"type": "linear", "factor": 2.0, "beta_fast": 3}}, "beta_fast"),
    (LLAMA2, {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    (LLAMA2, {"rope_interleaved": True}, "rope_interleaved"),
    (LLAMA2, {"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
    (LLAMA2, {"hidden_act": "mish"}, "mish"),
    (LLAMA2, {"hidden_act": ["silu"]}, "hidden_act"),
    (LLAMA2, {"num_experts": 8}, "num_experts"),
    (LLAMA2, {"pruned_heads": {"0": [1]}}, "pruned_heads"),
    (LLAMA2, {"is_encoder_decoder": True}, "is_encoder_decoder"),
    (LLAMA2, {"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
    (LLAMA2, {"architectures": ["LlamaForCausalLM", "LlamaForCausalLM"]}, "architectures"),
    (LLAMA2, {"model_type": "llama4"}, "llama4"),
    (LLAMA2, {"model_type": ["llama"]}, "model_type"),
    (LLAMA2, {"num_hidden_layers": True}, "num_layers"),
    (LLAMA2, {"hidden_size": "4096x"}, "hidden_size"),
    (GPT2, {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    (GPT2, {"add_cross_attention": True}, "add_cross_attention"),
    (PYTHIA, {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    (PHI3, {"rope_scaling": {"type": "linear", "factor": 2.0}}, "linear"),
    (PHI3, {"lm_head_bias": True}, "lm_head_bias"),
    (QWEN25, {"use_mrope": True}, "use_mrope"),
    (QWEN25, {"use_sliding_window": True, "layer_types": ["sliding_attention"]}, "layer_types"),
    (QWEN25, {"use_sliding_window": True, "layer_types": 3}, "layer_types"),
    (QWEN25, {"use_sliding_window": True, "max_window_layers": "3"}, "max_window_layers"),
    (GEMMA2, {"query_pre_attn_scalar": "x"}, "query_pre_attn_scalar"),
    (GEMMA2, {"query_pre_attn_scalar": 1e-300}, r"attention\.scale"),
    (GEMMA2, {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    (GEMMA3, {"sliding_window": None}, "sliding_window"),
    (GEMMA3, {"rope_local_base_freq": "low"}, "rope_local_base_freq"),
]


@pytest.mark.parametrize(("theirs", "change", "named"), REFUSED)
def test_what_would_be_computed_differently_is_refused_by_name(theirs, change, named):
    with pytest.raises(InputError, match=named):
        ours(theirs | change)


@pytest.mark.parametrize("architecture", WHOLE, ids=lambda architecture: architecture.model_type)
def test_sizes_are_written_in_full(architecture):
    config = ours(
        next(theirs for theirs, _ in PUBLISHED.values() if theirs["model_type"] == architecture.model_type)
    )
    written = architecture.config.to_theirs(config)
    if architecture.model_type not in ("gpt2", "gpt_neox"):
        assert isinstance(written["num_key_value_heads"], int)
    if architecture.model_type not in ("gpt2", "gpt_neox", "olmoe"):  # whose heads always fill the width
        assert isinstance(written["head_dim"], int)


def test_rope_scaling_overrules_rope_parameters_as_in_transformers():
    both = {"rope_parameters": {"rope_theta": 1e5}, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}
    rope = ours(LLAMA2 | both).attention.rope
    assert (rope.base, rope.scaling.factor) == (1e4, 4)
    within = {"original_max_position_embeddings": 16}
    scaling = {**PHI3_LONG["rope_scaling"], **within}
    inside = {key: value for key, value in PHI3_LONG.items() if key != "original_max_position_embeddings"}
    assert ours(inside | {"rope_scaling": scaling}).attention.rope.scaling.original_positions == 4096
    llama = LLAMA31 | {"rope_scaling": LLAMA31["rope_scaling"] | within}
    assert ours(llama).attention.rope.scaling.original_positions == 16
    llama |= {"original_max_position_embeddings": 32}
    assert ours(llama).attention.rope.scaling.original_positions == 32


@pytest.mark.parametrize(
    "scalings",
    [
        ({"rope_type": "linear", "factor": 8.0}, {"rope_type": "linear", "factor": 2.0}),
        (
            {"rope_type": "default"},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
        ),
    ],
)
def test_layers_with_windows_may_have_a_scaling_of_their_own(scalings):
    full, sliding = scalings
    both = {
        "full_attention": {"rope_theta": 1e5, **full},
        "sliding_attention": {"rope_theta": 300.0, **sliding},
    }
    config = ours(GEMMA3 | {"rope_parameters": both})
    architecture = fitting_architecture(config, "gemma3_text")
    assert (
        architecture.config.to_ours(architecture.config.to_theirs(config), "config.json").window_rope
        == config.window_rope
    )
    assert config.window_rope.scaling.kind == sliding["rope_type"]
    assert config.attention.rope.base == 1e5


def test_the_smallest_factors_are_still_the_same_model():
    config = ours(GEMMA2)
    small = dataclasses.replace(
        config, attention=dataclasses.replace(config.attention, scale=1e-20), embedding_scale=1e-20
    )
    same = canonical(small)
    assert (same.attention.scale, same.embedding_scale) == (1e-20, 1e-20)
    assert canonical(dataclasses.replace(small, embedding_scale=2e-20)) != same
