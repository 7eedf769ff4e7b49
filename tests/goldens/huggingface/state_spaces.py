"""Models of state spaces that transformers has: a config.json for each golden in state_spaces.npz.

`python state_spaces.py` makes it, with transformers 5, where torch is installed. Weights and tokens follow
from the names of tensors and the case's number (variants.py).
"""

import importlib
from pathlib import Path
from typing import Any

import numpy as np

_SIZES = {"vocab_size": 61, "hidden_size": 32}
_MAMBA = {**_SIZES, "num_hidden_layers": 2, "state_size": 5, "conv_kernel": 4}
_MAMBA2 = {**_MAMBA, "num_heads": 8, "head_dim": 8, "chunk_size": 4}
_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
_HYBRID = {**_SIZES, **_HEADS, "intermediate_size": 40, "max_position_embeddings": 64}
_NEMOTRON = {
    **_HYBRID,
    **{"head_dim": 6, "ssm_state_size": 5, "mamba_num_heads": 8, "mamba_head_dim": 8},
    **{"n_groups": 4, "chunk_size": 4},
}
_GRANITE = {
    **_HYBRID,
    **{"num_hidden_layers": 3, "layer_types": ["mamba", "attention", "mamba"], "mamba_n_heads": 8},
    **{"mamba_d_state": 5, "mamba_chunk_size": 4, "shared_intermediate_size": 20},
}
_ZAMBA2 = {
    **{**_HYBRID, "num_key_value_heads": 4},
    **{"num_hidden_layers": 5, "layers_block_type": ["mamba", "hybrid", "hybrid", "mamba", "hybrid"]},
    **{"n_mamba_heads": 8, "mamba_ngroups": 2, "mamba_d_state": 5, "chunk_size": 4, "adapter_rank": 3},
    "tie_word_embeddings": True,
}
_FALCON_H1 = {
    **_HYBRID,
    **{"num_hidden_layers": 2, "mamba_n_heads": 8, "mamba_d_head": "auto", "mamba_n_groups": 2},
    **{"mamba_d_ssm": 48, "mamba_d_state": 5, "mamba_chunk_size": 4},
}

CASES: dict[str, dict[str, Any]] = {
    "mamba": _MAMBA,
    "mamba, biases and GELU": {
        **_MAMBA,
        **{"use_bias": True, "use_conv_bias": False, "hidden_act": "gelu", "expand": 3, "time_step_rank": 5},
        **{"conv_kernel": 2, "layer_norm_epsilon": 1e-3, "tie_word_embeddings": False},
    },
    "falcon_mamba": {**_MAMBA, "mixer_rms_eps": 1e-3, "tie_word_embeddings": False},
    "mamba2": {**_MAMBA2, "n_groups": 2},
    "mamba2, biases and bounded steps": {
        **_MAMBA2,
        **{"n_groups": 1, "use_bias": True, "use_conv_bias": False, "time_step_limit": [0.3, 0.9]},
        **{"tie_word_embeddings": True, "layer_norm_epsilon": 1e-3},
    },
    "nemotron_h": {**_NEMOTRON, "layers_block_type": ["linear_attention", "mlp", "full_attention", "mlp"]},
    "nemotron_h, experts": {
        **_NEMOTRON,
        **{"hybrid_override_pattern": "ME*E", "n_routed_experts": 4, "moe_intermediate_size": 12},
        **{"moe_shared_expert_intermediate_size": 20, "routed_scaling_factor": 2.5, "use_bias": True},
    },
    "bamba": {
        **_HYBRID,
        **{"num_hidden_layers": 3, "attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": "auto"},
        **{"mamba_n_groups": 2, "mamba_d_state": 5, "mamba_chunk_size": 4, "tie_word_embeddings": True},
    },
    "jamba": {
        **_HYBRID,
        **{"num_hidden_layers": 4, "attn_layer_period": 3, "attn_layer_offset": 1, "mamba_d_state": 5},
        **{"num_experts": 4, "mamba_dt_rank": 3, "rms_norm_eps": 1e-3},
    },
    "falcon_h1": {
        **_FALCON_H1,
        **{"embedding_multiplier": 1.7, "lm_head_multiplier": 0.6, "key_multiplier": 0.7},
        **{"attention_in_multiplier": 1.3, "attention_out_multiplier": 0.8, "mlp_multipliers": [1.4, 0.7]},
        **{"ssm_in_multiplier": 1.2, "ssm_out_multiplier": 0.9, "rope_theta": 1e11},
        "ssm_multipliers": [1.5, 0.8, 1.2, 0.7, 1.1],
    },
    "falcon_h1, a norm behind the gate": {
        **_FALCON_H1,
        **{"mamba_d_ssm": None, "mamba_rms_norm": True, "mamba_norm_before_gate": False},
        **{"mamba_proj_bias": True, "attention_bias": True, "ssm_multipliers": [1.5, 0.8, 1.2, 0.7, 1.1]},
        **{"ssm_in_multiplier": 0.6, "attention_in_multiplier": 0.7, "tie_word_embeddings": True},
    },
    "falcon_h1, a norm before the gate": {
        **_FALCON_H1,
        **{"head_dim": 6, "mamba_rms_norm": True, "mamba_norm_before_gate": True, "projectors_bias": True},
        **{"mlp_bias": True, "mlp_multipliers": [1.4, 0.7], "mamba_conv_bias": False},
    },
    "granitemoehybrid": {
        **_GRANITE,
        **{"num_local_experts": 4, "num_experts_per_tok": 2, "rms_norm_eps": 1e-3},
        **{"position_embedding_type": "nope", "mamba_n_groups": 2, "embedding_multiplier": 1.7},
        **{"logits_scaling": 1.6, "residual_multiplier": 0.7, "attention_multiplier": 0.3},
    },
    "granitemoehybrid, without experts": {
        **_GRANITE,
        **{"num_local_experts": 0, "position_embedding_type": "rope", "rope_theta": 500.0},
        **{"tie_word_embeddings": True, "attention_bias": True, "mamba_proj_bias": True},
        **{"attention_multiplier": 0.5, "residual_multiplier": 0.8},
    },
    "zamba2": {
        **_ZAMBA2,
        **{"num_mem_blocks": 2, "use_mem_rope": True, "rope_theta": 500.0, "hidden_act": "gelu"},
        **{"time_step_min": 0.6, "time_step_max": 0.9},
    },
    "zamba2, adapters of attention": {
        **_ZAMBA2,
        **{"num_mem_blocks": 1, "use_shared_attention_adapter": True, "add_bias_linear": True},
        **{"rms_norm_eps": 1e-3, "hidden_act": "silu"},
    },
}
CLASSES = {
    "mamba": "MambaForCausalLM",
    "falcon_mamba": "FalconMambaForCausalLM",
    "mamba2": "Mamba2ForCausalLM",
    "nemotron_h": "NemotronHForCausalLM",
    "bamba": "BambaForCausalLM",
    "jamba": "JambaForCausalLM",
    "granitemoehybrid": "GraniteMoeHybridForCausalLM",
    "falcon_h1": "FalconH1ForCausalLM",
    "zamba2": "Zamba2ForCausalLM",
}


def config_of(case: str) -> dict[str, Any]:
    """The config.json."""
    kind = case.partition(",")[0]
    return {**CASES[case], "model_type": kind, "architectures": [CLASSES[kind]]}


def tokens_of(case: str) -> np.ndarray:
    """Two rows, longer than chunks."""
    return np.random.RandomState(len(case)).randint(0, 61, (2, 13))


def main() -> None:
    make_goldens: Any = importlib.import_module("make_goldens")

    path, arrays = Path(__file__).with_suffix(".npz"), {}
    for number, case in enumerate(CASES):
        make_goldens.variants.config_of = lambda _kind, _seed, case=case: config_of(case)
        shapes, model = make_goldens.theirs_of(case.partition(",")[0], number)
        tokens = tokens_of(case)
        logits = make_goldens.logits_of(model, tokens, np.ones_like(tokens))
        arrays[f"{case}/logits"] = logits[:, ::3, ::4]
        arrays[f"{case}/tensors"] = np.array(make_goldens.variants.fingerprint(shapes))
        print(case, logits.std(), model.num_parameters())
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    main()
