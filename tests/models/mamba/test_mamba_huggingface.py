"""Models of state spaces against transformers: the goldens hold some of the logits."""

import contextlib
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from oracles.difference import Scale, difference

from mjx.errors import InputError
from mjx.models.huggingface import from_pretrained, save_pretrained
from mjx.models.huggingface.tensor_writer import TensorWriter
from mjx.models.interop.architectures import find_architecture, fitting_architecture
from mjx.models.interop.tensor_layout import InMemory
from mjx.models.mamba import PUBLISHED, MambaConfig
from mjx.models.mamba.config_keys import canonical
from mjx.models.mamba.huggingface import ARCHITECTURES
from mjx.trees import flatten

STRICT = Scale(limit=1e-5, scale=1.0)
GOLDENS = Path(__file__).parents[2] / "goldens" / "huggingface"


def script(name: str):
    """A module that stands beside the goldens."""
    spec = importlib.util.spec_from_file_location(name, GOLDENS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules.setdefault(name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


variants, state_spaces = script("variants"), script("state_spaces")
with np.load(GOLDENS / "state_spaces.npz") as file:
    GOLDEN = dict(file)
CASES = list(state_spaces.CASES)


def ours(theirs: dict) -> MambaConfig:
    family, architecture = find_architecture(theirs)
    assert family == "mamba"
    return architecture.config.to_ours(theirs, "config.json")


def write_checkpoint(folder: Path, case: str) -> dict[str, np.ndarray]:
    """The folder of a case; returns its weights."""
    config = state_spaces.config_of(case)
    _, architecture = find_architecture(config)
    shapes = architecture.name_map(ours(config)).theirs
    weights = variants.weights_of(config["model_type"], shapes, CASES.index(case))
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    with TensorWriter(folder, {name: (each.shape, each.dtype) for name, each in weights.items()}) as writer:
        for name, each in weights.items():
            writer.write(name, each)
    return weights


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_those_of_transformers(case, tmp_path):
    weights = write_checkpoint(tmp_path, case)
    shapes = {name: each.shape for name, each in weights.items()}
    assert variants.fingerprint(shapes) == GOLDEN[f"{case}/tensors"]
    logits = from_pretrained(tmp_path)(state_spaces.tokens_of(case))
    found = difference("logits", np.asarray(logits)[:, ::3, ::4], GOLDEN[f"{case}/logits"], STRICT)
    assert found.within, found.sentence


@pytest.mark.parametrize("case", CASES)
def test_config_and_tensors_survive_the_way_back(case, tmp_path):
    weights = write_checkpoint(tmp_path / "theirs", case)
    model = from_pretrained(tmp_path / "theirs")
    kind = case.partition(",")[0]
    written = fitting_architecture(model.config, kind)
    assert written.model_type == kind
    assert written.canonical(ours(written.config.to_theirs(model.config) | {"model_type": kind})) == (
        written.canonical(model.config)
    )
    back = written.name_map(model.config).to_theirs(model.parameters)
    assert back.keys() == weights.keys()
    for name, each in weights.items():
        np.testing.assert_array_equal(back[name], each, err_msg=name)


@pytest.mark.parametrize(
    ("case", "unsaid"),
    [
        ("nemotron_h", "n_routed_experts"),
        ("nemotron_h, experts", "intermediate_size"),
        ("granitemoehybrid, without experts", "num_experts_per_tok"),
    ],
)
def test_nothing_is_said_of_a_mixer_that_is_not_there(case, unsaid):
    """transformers refuses null where it wants a number."""
    config = ours(state_spaces.config_of(case))
    written = find_architecture(state_spaces.config_of(case))[1].config.to_theirs(config)
    assert unsaid not in written


def test_what_is_saved_is_read_again(tmp_path):
    write_checkpoint(tmp_path / "theirs", "nemotron_h")
    model = from_pretrained(tmp_path / "theirs")
    save_pretrained(model, tmp_path / "ours")
    written = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert written["model_type"] == "nemotron_h"
    assert ours(written).symbols == "M-*-"
    again = from_pretrained(tmp_path / "ours")
    tokens = state_spaces.tokens_of("nemotron_h")
    np.testing.assert_array_equal(again(tokens), model(tokens))


MAMBA_130M = {
    **{"architectures": ["MambaForCausalLM"], "bos_token_id": 0, "conv_kernel": 4, "d_inner": 1536},
    **{"d_model": 768, "eos_token_id": 0, "expand": 2, "fused_add_norm": True, "hidden_act": "silu"},
    **{"hidden_size": 768, "initializer_range": 0.1, "intermediate_size": 1536, "model_type": "mamba"},
    **{"layer_norm_epsilon": 1e-5, "n_layer": 24, "num_hidden_layers": 24, "pad_token_id": 0},
    **{"pad_vocab_size_multiple": 8, "rescale_prenorm_residual": False, "residual_in_fp32": True},
    **{"rms_norm": True, "ssm_cfg": {}, "state_size": 16, "time_step_floor": 1e-4, "time_step_rank": 48},
    **{
        "time_step_init_scheme": "random",
        "time_step_max": 0.1,
        "time_step_min": 1e-3,
        "time_step_scale": 1.0,
    },
    **{
        "torch_dtype": "float32",
        "use_bias": False,
        "use_cache": True,
        "use_conv_bias": True,
        "vocab_size": 50280,
    },
}
"""As the hub has it."""
CODESTRAL = {
    **{"architectures": ["Mamba2ForCausalLM"], "chunk_size": 256, "conv_kernel": 4, "expand": 2},
    **{"head_dim": 64, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.1},
    **{"intermediate_size": 8192, "layer_norm_epsilon": 1e-5, "model_type": "mamba2", "n_groups": 8},
    **{"norm_before_gate": True, "num_heads": 128, "num_hidden_layers": 64, "rms_norm": True},
    **{"state_size": 128, "tie_word_embeddings": False, "time_step_limit": [0.0, float("inf")]},
    **{"time_step_rank": 256, "use_bias": False, "use_conv_bias": True, "vocab_size": 32768},
}
FALCON_H1 = {
    **{"architectures": ["FalconH1ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0},
    **{"attention_in_multiplier": 1.0, "attention_out_multiplier": 0.9375, "attn_layer_indices": None},
    **{"embedding_multiplier": 5.656854249492381, "head_dim": 64, "hidden_act": "silu"},
    **{"hidden_size": 1024, "initializer_range": 0.02, "intermediate_size": 2048},
    **{"key_multiplier": 0.39062499999999994, "lm_head_multiplier": 0.0390625, "mamba_chunk_size": 128},
    **{"mamba_conv_bias": True, "mamba_d_conv": 4, "mamba_d_head": 64, "mamba_d_ssm": 1536},
    **{"mamba_d_state": 128, "mamba_expand": 2, "mamba_n_groups": 1, "mamba_n_heads": 24},
    **{"mamba_norm_before_gate": False, "mamba_proj_bias": False, "mamba_rms_norm": False},
    **{"mamba_use_mlp": True, "max_position_embeddings": 16384, "mlp_bias": False},
    **{"mlp_multipliers": [0.8838834764831844, 0.5859375], "model_type": "falcon_h1"},
    **{"num_attention_heads": 8, "num_hidden_layers": 36, "num_key_value_heads": 2},
    **{"projectors_bias": False, "rms_norm_eps": 1e-5, "rope_scaling": None, "rope_theta": 1e11},
    **{"ssm_in_multiplier": 1.25, "ssm_out_multiplier": 0.23570226039551587},
    "ssm_multipliers": [0.3535533905932738, 0.25, 0.3535533905932738, 0.5, 0.3535533905932738],
    **{"tie_word_embeddings": False, "torch_dtype": "bfloat16", "vocab_size": 32784},
}

GRANITE = {
    **{"architectures": ["GraniteMoeHybridForCausalLM"], "attention_bias": False, "attention_dropout": 0.0},
    **{"attention_multiplier": 0.0078125, "embedding_multiplier": 12, "hidden_act": "silu"},
    **{"hidden_size": 1536, "init_method": "mup", "initializer_range": 0.1, "intermediate_size": 512},
    **{"layer_types": (["mamba"] * 5 + ["attention"] + ["mamba"] * 4) * 4, "logits_scaling": 6},
    **{"mamba_chunk_size": 256, "mamba_conv_bias": True, "mamba_d_conv": 4, "mamba_d_head": 64},
    **{"mamba_d_state": 128, "mamba_expand": 2, "mamba_n_groups": 1, "mamba_n_heads": 48},
    **{"mamba_proj_bias": False, "max_position_embeddings": 131072, "model_type": "granitemoehybrid"},
    **{"normalization_function": "rmsnorm", "num_attention_heads": 12, "num_experts_per_tok": 6},
    **{"num_hidden_layers": 40, "num_key_value_heads": 4, "num_local_experts": 64},
    **{"output_router_logits": False, "position_embedding_type": "nope", "residual_multiplier": 0.22},
    **{"rms_norm_eps": 1e-5, "rope_scaling": None, "rope_theta": 10000, "router_aux_loss_coef": 0.0},
    **{"shared_intermediate_size": 1024, "tie_word_embeddings": True, "vocab_size": 100352},
}
ZAMBA2 = {
    **{"adapter_rank": 128, "add_bias_linear": False, "architectures": ["Zamba2ForCausalLM"]},
    **{"attention_dropout": 0.0, "attention_head_dim": 224, "attention_hidden_size": 7168},
    **{"bos_token_id": 1, "chunk_size": 256, "eos_token_id": 2, "hidden_act": "gelu"},
    **{"hidden_size": 3584, "hybrid_layer_ids": [6, 11, *range(17, 81, 6)], "initializer_range": 0.02},
    **{"intermediate_size": 14336, "kv_channels": 112, "mamba_d_conv": 4, "mamba_d_state": 64},
    "layers_block_type": ["hybrid" if n in (6, 11, *range(17, 81, 6)) else "mamba" for n in range(81)],
    **{"mamba_expand": 2, "mamba_headdim": 64, "mamba_ngroups": 2, "max_position_embeddings": 4096},
    **{"model_type": "zamba2", "n_mamba_heads": 112, "num_attention_heads": 32, "num_hidden_layers": 81},
    **{"num_key_value_heads": 32, "num_logits_to_keep": 1, "num_mem_blocks": 2, "num_query_groups": 32},
    **{"pad_token_id": 0, "rms_norm_eps": 1e-5, "rope_theta": 10000, "time_step_floor": 1e-4},
    **{"time_step_limit": None, "time_step_max": 0.1, "time_step_min": 1e-3, "use_cache": True},
    **{"use_conv_bias": True, "use_long_context": False, "use_mamba_kernels": True},
    **{"use_mem_eff_path": False, "use_mem_rope": True, "use_shared_attention_adapter": False},
    "vocab_size": 32000,
}


@pytest.mark.parametrize(
    ("theirs", "parameters"),
    [
        (MAMBA_130M, 129_135_360),
        (CODESTRAL, 7_285_403_648),
        (FALCON_H1, 521_411_104),
        (GRANITE, 6_939_037_248),
        (ZAMBA2, 7_356_749_648),
    ],
    ids=["Mamba 130M", "Codestral", "Falcon-H1 0.5B", "Granite 4.0 tiny", "Zamba2 7B"],
)
def test_a_published_model_has_its_number_of_parameters_and_survives_the_way_back(theirs, parameters):
    config = ours(theirs)
    assert config.num_parameters() == parameters
    assert fitting_architecture(config, theirs["model_type"]).model_type == theirs["model_type"]


def test_the_published_sizes_have_the_multipliers_of_their_configs():
    (architecture,) = (each for each in ARCHITECTURES if each.model_type == "falcon_h1")
    theirs = architecture.config.to_theirs(PUBLISHED["falcon-h1-0.5b"])
    for name, value in FALCON_H1.items():
        if "multiplier" in name:
            np.testing.assert_allclose(theirs[name], value, rtol=1e-9, err_msg=name)
    for name, theirs in (("granite-4.0-h-tiny", GRANITE), ("zamba2-7b", ZAMBA2)):
        assert canonical(ours(theirs)) == canonical(PUBLISHED[name])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time_step_limit": [0.1]}, "time_step_limit.*two bounds"),
        ({"n_groups": 3}, r"ssd\.groups = 3 does not divide ssd\.heads = 128"),
        ({"hidden_act": "tanh"}, "hidden_act.*known are"),
        ({"rms_norm": False}, "rms_norm.*mjx does not compute"),
        ({"conv_size": 5}, "conv_size.*mjx does not know for this model"),
        ({"num_hidden_layers": "many"}, "num_hidden_layers.*should be a number"),
    ],
)
def test_what_mjx_would_compute_differently_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        ours(CODESTRAL | changes)


@pytest.mark.parametrize(
    ("case", "changes", "message"),
    [
        ("nemotron_h", {"layers_block_type": ["mlp", "conv"]}, "layers_block_type.*should be a list of"),
        ("nemotron_h", {"n_group": 2}, "n_group.*mjx does not compute"),
        ("nemotron_h", {"num_nextn_predict_layers": 1}, "num_nextn_predict_layers"),
        ("bamba", {"attn_layer_indices": [3]}, "attn_layer_indices.*layers 0 to 2"),
        ("jamba", {"attn_layer_offset": 3}, "attn_layer_offset.*below"),
        ("zamba2", {"layers_block_type": ["mamba", "attention"]}, "layers_block_type.*should be 5 of"),
        ("zamba2", {"use_long_context": True}, "use_long_context.*mjx does not compute"),
        ("granitemoehybrid", {"layer_types": ["mamba", "mlp", "mamba"]}, "layer_types.*should be 3 of"),
        ("granitemoehybrid", {"layer_types": ["mamba"]}, "layer_types.*should be 3 of mamba and attention"),
        ("granitemoehybrid", {"position_embedding_type": "alibi"}, "alibi.*known are rope and nope"),
        ("granitemoehybrid", {"logits_scaling": 0}, "wrong type.*logits_scaling"),
        ("falcon_h1", {"mamba_d_ssm": 40, "mamba_d_head": 8}, "mamba_n_heads.*8 heads of 8.*40 in all"),
        ("falcon_h1", {"mlp_multipliers": [1.0]}, "mlp_multipliers.*should be 2 numbers"),
        ("falcon_h1", {"ssm_multipliers": [1.0]}, "ssd.scales"),
        ("falcon_h1", {"ssm_in_multiplier": -1.0}, r"model\.scales\.ssd\.input = -1\.0 must be positive"),
    ],
)
def test_layers_that_cannot_be_are_refused(case, changes, message):
    with pytest.raises(InputError, match=message):
        ours(state_spaces.config_of(case) | changes)


def test_with_a_head_of_its_own_a_zamba2_has_a_block_for_each_place():
    """As transformers has it, which then ties nothing; adapters that no place uses may lie in the file."""
    theirs = state_spaces.config_of("zamba2, adapters of attention") | {"tie_word_embeddings": False}
    config = ours(theirs)
    assert config.shared_block is not None
    assert config.shared_block.blocks == 3
    names = fitting_architecture(config, "zamba2").name_map(config)
    tensors = {name: InMemory(np.zeros(shape, np.float32)) for name, shape in names.theirs.items()}
    used = "model.layers.1.shared_transformer.feed_forward.gate_up_proj_adapter_list.0.0.weight"
    assert used in tensors
    names.check(tensors | {used.replace("list.0", "list.1"): tensors[used]})
    names.check({**tensors})
    with pytest.raises(InputError, match=r"1 unknown \(model\.layers\.1\.other"):
        names.check(tensors | {"model.layers.1.other": tensors[used]})


def test_places_of_one_block_may_have_its_tensors_again_if_they_are_the_same():
    config = ours(state_spaces.config_of("zamba2"))
    names = fitting_architecture(config, "zamba2").name_map(config)
    tensors = {name: InMemory(np.ones(shape, np.float32)) for name, shape in names.theirs.items()}
    first = "model.layers.1.shared_transformer.pre_ff_layernorm.weight"
    again = first.replace("layers.1", "layers.4")
    names.check(tensors | {again: tensors[first]})
    with pytest.raises(InputError, match=f"tensor {again} differs from {first}"):
        names.check(tensors | {again: InMemory(np.zeros_like(tensors[first].array))})
    with pytest.raises(InputError, match="1 unknown"):  # that of the other block
        names.check(tensors | {first.replace("layers.1", "layers.3"): tensors[first]})


@pytest.mark.parametrize("case", CASES)
def test_only_the_architectures_that_can_hold_a_hybrid_are_said_to(case):
    config, fitting = ours(state_spaces.config_of(case)), []
    for architecture in ARCHITECTURES:
        with contextlib.suppress(InputError):
            fitting.append(fitting_architecture(config, architecture.model_type).model_type)
    kind = case.partition(",")[0]
    assert fitting == {"mamba2": ["mamba2", "nemotron_h"]}.get(kind, [kind])


def test_in_bfloat16_decays_steps_and_skips_stay_float32(tmp_path):
    for case in ("mamba", "mamba2"):
        write_checkpoint(tmp_path / case, case)
        model, exact = (from_pretrained(tmp_path / case, dtype=dtype) for dtype in ("bfloat16", None))
        wide = {path for path, leaf in flatten(model.parameters).items() if leaf.dtype == np.float32}
        assert {path.rpartition(".")[2] for path in wide} == {"A_log", "D", "dt_bias"}
        for path in wide:
            np.testing.assert_array_equal(flatten(model.parameters)[path], flatten(exact.parameters)[path])
        tokens = state_spaces.tokens_of(case)
        np.testing.assert_allclose(model(tokens), exact(tokens), atol=0.05)
