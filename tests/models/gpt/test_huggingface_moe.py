"""What config.json says of mixtures of experts, beyond what the goldens of test_huggingface.py compare."""

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import pytest

from mjx.errors import InputError
from mjx.models.gpt import PUBLISHED
from mjx.models.gpt.config_keys import canonical
from mjx.models.gpt.huggingface_moe import MIXTURES
from mjx.models.interop.architectures import find_architecture, fitting_architecture
from mjx.models.interop.tensor_layout import InMemory
from mjx.parse import to_tree
from mjx.trees import flatten

CONFIGS = {
    name: model["config"]
    for name, model in json.loads(
        (Path(__file__).parents[2] / "goldens" / "huggingface" / "published.json").read_text()
    ).items()
}
MIXTRAL, OLMOE, GPT_OSS = CONFIGS["Mixtral 8x7B v0.1"], CONFIGS["OLMoE 1B-7B 0924"], CONFIGS["gpt-oss 20b"]
QWEN2, QWEN3 = CONFIGS["Qwen1.5 MoE A2.7B"], CONFIGS["Qwen3 30B-A3B"]
EACH = (MIXTRAL, QWEN2, QWEN3, GPT_OSS, OLMOE)


def ours(theirs):
    return find_architecture(theirs)[1].config.to_ours(theirs, "config.json")


PRESETS = {
    "mixtral-8x7b": "Mixtral 8x7B v0.1",
    "mixtral-8x22b": "Mixtral 8x22B v0.3",
    "qwen1.5-moe-a2.7b": "Qwen1.5 MoE A2.7B",
    "qwen2-57b-a14b": "Qwen2 57B-A14B",
    "qwen3-30b-a3b": "Qwen3 30B-A3B",
    "qwen3-235b-a22b": "Qwen3 235B-A22B",
    "gpt-oss-20b": "gpt-oss 20b",
    "gpt-oss-120b": "gpt-oss 120b",
    "olmoe-1b-7b": "OLMoE 1B-7B 0924",
}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_the_model_of_its_config_json(preset):
    assert canonical(PUBLISHED[preset]) == canonical(ours(CONFIGS[PRESETS[preset]]))


@pytest.mark.parametrize(
    ("change", "sparse"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"decoder_sparse_step": None, "mlp_only_layers": None}, [0, 1, 2, 3, 4, 5]),
        ({"decoder_sparse_step": 2}, [1, 3, 5]),
        ({"decoder_sparse_step": 4}, [3]),
        ({"mlp_only_layers": [0, 3]}, [1, 2, 4, 5]),
        ({"decoder_sparse_step": 2, "mlp_only_layers": [3]}, [1, 5]),
        ({"mlp_only_layers": [0, 1]}, [2, 3, 4, 5]),
        ({"decoder_sparse_step": 7}, []),
        ({"num_experts": 0}, []),
    ],
)
@pytest.mark.parametrize("theirs", [QWEN2, QWEN3], ids=["qwen2_moe", "qwen3_moe"])
def test_layers_with_experts_are_those_that_transformers_makes(theirs, change, sparse):
    config = ours(theirs | {"num_hidden_layers": 6} | change)
    assert [layer for layer, routed in enumerate(config.moe_layers) if routed] == sparse
    dense = config.mlp is not None and not all(config.moe_layers)
    assert dense == (len(sparse) < 6)
    if dense:
        assert config.mlp.features == theirs["intermediate_size"]
    written = find_architecture(theirs)[1].config.to_theirs(config)
    assert None not in (written["intermediate_size"], written["hidden_act"])
    assert canonical(ours({"model_type": theirs["model_type"], **written})) == canonical(config)


def test_probabilities_sum_to_one_where_the_config_says_so():
    assert ours(MIXTRAL).moe.router.normalized
    assert ours(GPT_OSS).moe.router.normalized
    assert ours(QWEN3).moe.router.normalized
    assert not ours(QWEN2).moe.router.normalized
    for theirs in (QWEN2, QWEN3, OLMOE):
        unsaid = {key: value for key, value in theirs.items() if key != "norm_topk_prob"}
        assert not ours(unsaid).moe.router.normalized


def test_either_word_for_the_number_of_experts_is_read():
    for theirs, word, other in (
        (MIXTRAL, "num_local_experts", "num_experts"),
        (QWEN3, "num_experts", "num_local_experts"),
        (OLMOE, "num_experts", "num_local_experts"),
        (GPT_OSS, "num_local_experts", "num_experts"),
    ):
        renamed = {other if key == word else key: value for key, value in theirs.items()}
        assert ours(renamed) == ours(theirs)
        assert ours(theirs | {other: theirs[word]}) == ours(theirs)
        with pytest.raises(InputError, match=rf'"{word}": \d+ and "{other}": 3, which mean the same'):
            ours(theirs | {other: 3})


def test_a_missing_key_of_a_mixture_means_what_it_means_to_transformers():
    bare = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    bare += ("vocab_size",)

    def of(theirs):
        return ours({key: theirs[key] for key in bare})

    configs = {theirs["model_type"]: of(theirs) for theirs in EACH}
    sizes = {
        name: (config.moe.experts, config.moe.top_k, config.attention.num_query_groups)
        for name, config in configs.items()
    }
    assert sizes == {
        "mixtral": (8, 2, 8),
        "qwen2_moe": (60, 4, 16),
        "qwen3_moe": (128, 8, 4),
        "gpt_oss": (128, 4, 8),
        "olmoe": (64, 8, None),
    }
    assert of(MIXTRAL).attention.rope.base == 1e6
    assert of(MIXTRAL).attention.window is None
    assert of(QWEN2).moe.mlp.features == 1408
    assert of(QWEN2).moe.shared_features == 5632
    assert of(QWEN2).attention.qkv_bias
    assert of(QWEN3).moe.mlp.features == 768
    assert of(GPT_OSS) == dataclasses.replace(ours(GPT_OSS), moe=of(GPT_OSS).moe)
    assert of(GPT_OSS).attention.rope == ours(GPT_OSS).attention.rope
    assert ours(GPT_OSS | {"rope_scaling": None}).attention.rope == ours(GPT_OSS).attention.rope
    assert ours(GPT_OSS | {"rope_scaling": {"rope_type": "default"}}).attention.rope.scaling is None


def test_windows_are_those_of_the_layers_that_have_them():
    windows = [layer.mixer.window for layer in ours(GPT_OSS).sublayers()[::2]]
    assert windows == [128, None] * 12
    used = {"use_sliding_window": True, "sliding_window": 64}
    assert ours(QWEN3 | {"sliding_window": 64}).attention.window is None
    assert [layer.mixer.window for layer in ours(QWEN3 | used).sublayers()[::2]] == [64] * 48
    # Qwen2's mixtures have them in front, and in every other layer; the dense ones have them behind.
    windows = [layer.mixer.window for layer in ours(QWEN2 | used | {"max_window_layers": 3}).sublayers()[::2]]
    assert windows == [64, None, 64] + [None] * 21


@pytest.mark.parametrize("theirs", EACH, ids=lambda each: each["model_type"])
def test_the_balance_of_experts_is_training_s_own_choice(theirs):
    config = ours(theirs | {"router_aux_loss_coef": 0.7, "output_router_logits": True})
    assert config == ours(theirs)
    router = dataclasses.replace(config.moe.router, load_balancing_loss=0.01, z_loss=1e-3, jitter=0.1)
    trained = dataclasses.replace(config, moe=dataclasses.replace(config.moe, router=router))
    assert fitting_architecture(trained).model_type == theirs["model_type"]
    free = {name for name in type(config).training_choices if name.startswith("moe.")}
    assert "moe.router.load_balancing_loss" in free
    assert free <= flatten(to_tree(config)).keys()


@pytest.mark.parametrize(
    ("theirs", "change", "named"),
    [
        (QWEN3, {"decoder_sparse_step": 0}, '"decoder_sparse_step": 0, which should be a number from 1 on'),
        (QWEN3, {"mlp_only_layers": 3}, '"mlp_only_layers": 3, which should be a list'),
        (QWEN3, {"mlp_only_layers": ["0"]}, "mlp_only_layers"),
        (QWEN3, {"num_hidden_layers": "6"}, "num_hidden_layers"),
        (QWEN3, {"num_experts_per_tok": 129}, r"moe\.top_k = 129 is more than moe\.experts = 128"),
        (QWEN3, {"qkv_bias": True}, "qkv_bias"),
        (QWEN3, {"shared_expert_intermediate_size": 8}, "shared_expert_intermediate_size"),
        (
            QWEN3,
            {"quantization_config": {"quant_method": "fp8"}},
            'method "fp8"; of this model mjx reads none',
        ),
        (MIXTRAL, {"num_experts_per_tok": 1}, r"moe\.top_k = 1 needs moe\.router\.normalized = false"),
        (MIXTRAL, {"quantization_config": {"quant_method": "awq"}}, "awq"),
        (GPT_OSS, {"quantization_config": {"quant_method": "awq"}}, 'method "awq"; .* only mxfp4'),
        (GPT_OSS, {"quantization_config": {"load_in_4bit": True}}, "method null"),
        (GPT_OSS, {"quantization_config": "mxfp5"}, "mxfp5"),
        (GPT_OSS, {"swiglu_alpha": 1.5}, "swiglu_alpha"),
        (GPT_OSS, {"swiglu_limit": 0}, r"mlp\.clamp"),
        (OLMOE, {"clip_qkv": 8.0}, "clip_qkv"),
        (OLMOE, {"head_dim": 64}, "head_dim"),
        (OLMOE, {"sliding_window": 64}, "sliding_window"),
    ],
)
def test_what_would_be_computed_differently_is_refused_by_name(theirs, change, named):
    with pytest.raises(InputError, match=named):
        ours(theirs | change)


def test_what_no_architecture_can_say_is_named():
    config = ours(QWEN3)
    for change, named in (
        ({"moe": dataclasses.replace(config.moe, latent=64)}, r"moe\.latent = 64"),
        ({"attention": dataclasses.replace(config.attention, soft_cap=3.0)}, r"attention\.soft_cap = 3\.0"),
    ):
        with pytest.raises(InputError, match=f"the nearest, qwen3_moe, has no model.{named}"):
            fitting_architecture(dataclasses.replace(config, **change))


@pytest.mark.parametrize("architecture", MIXTURES, ids=lambda each: each.model_type)
def test_a_part_of_every_parameter_is_read_like_the_whole(architecture):
    theirs = next(each for each in CONFIGS.values() if each["model_type"] == architecture.model_type)
    small = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2}
    small |= {"intermediate_size": 6, "vocab_size": 20, "num_experts_per_tok": 2}
    small |= {key: 4 for key in ("moe_intermediate_size", "shared_expert_intermediate_size") if key in theirs}
    small |= {key: 3 for key in ("num_experts", "num_local_experts") if key in theirs}
    small |= {key: 8 for key in ("head_dim",) if key in theirs}
    small |= {"layer_types": theirs["layer_types"][:2]} if "layer_types" in theirs else {}
    names = architecture.name_map(ours(theirs | small))
    draw, random_ = np.random.RandomState(0), random.Random(0)
    tensors = {name: InMemory(draw.standard_normal(shape)) for name, shape in names.theirs.items()}
    for path, whole in flatten(names.to_ours(tensors)).items():
        bounds = [sorted(random_.sample(range(size + 1), 2)) for size in whole.shape]
        index = tuple(slice(*each) for each in bounds)
        np.testing.assert_array_equal(names.read(tensors, path, index), whole[index], err_msg=path)
