"""Hugging Face's models that a hybrid of state spaces can be."""

from collections.abc import Callable, Sequence
from typing import Any

from mjx.models.interop.architecture import ACTIVATIONS, UNQUANTIZED, WITHOUT_MEANING, Architecture
from mjx.models.interop.config_map import ConfigMap, Constant, Entry, Key, Only, ResolvedKey
from mjx.models.interop.name_map import NameMap
from mjx.models.interop.rope_keys import RopeKeys
from mjx.models.mamba.config import MambaConfig
from mjx.models.mamba.config_keys import Unused, canonical
from mjx.models.mamba.huggingface_keys import Channels, StepLimit, StepRank, heads, steps
from mjx.models.mamba.huggingface_layers import AllAlike, AttentionIndices, BlockTypes, Periods
from mjx.models.mamba.huggingface_names import mixer_names, paired_names

_WITHOUT_MEANING = (
    # Initial weights, dtypes, and names of kernels
    *("residual_in_fp32", "rescale_prenorm_residual", "use_mambapy", "use_associative_scan"),
    *("use_mamba_kernels", "use_falcon_mambapy", "mamba_ssm_cache_dtype", "num_logits_to_keep"),
    *("fused_add_norm", "ssm_cfg", "pad_vocab_size_multiple"),
    # What the original code called other keys
    *("d_inner", "d_model", "n_layer"),
)


_SIZES = (
    Key("vocab_size", "vocab_size"),
    Key("hidden_size", "hidden_size"),
    Constant("norm.kind", "rmsnorm"),
)
_MAMBA1 = (
    *_SIZES,
    Key("state_size", "selective_scan.state", 16),
    Channels("expand"),
    Key("conv_kernel", "selective_scan.conv_width", 4),
    Key("use_bias", "selective_scan.bias", False),
    Key("use_conv_bias", "selective_scan.conv_bias", True),
    Key("hidden_act", "selective_scan.activation", "silu", ACTIVATIONS),
    Key("layer_norm_epsilon", "norm.epsilon", 1e-5),
    Key("initializer_range", "init_std", 0.1),
    Key("tie_word_embeddings", "tie_embeddings", True),
    StepRank("time_step_rank", "selective_scan.dt_rank", None),
    *steps("selective_scan"),
    Key("time_step_scale", "selective_scan.dt_scale", 1.0),
    Key("time_step_init_scheme", "selective_scan.dt_weights", "random"),
    Only("rms_norm", True),
)
_ATTENTION = (
    Key("num_attention_heads", "attention.num_heads", 32),
    ResolvedKey("num_key_value_heads", "attention.num_query_groups", 8, null=True),
    Key("attention_dropout", "attention.dropout", 0.0),
)


def _architecture(
    model_type: str,
    class_name: str,
    layers: Any,
    *entries: Entry,
    names: Callable[[MambaConfig], NameMap] = mixer_names,
    prefix: str = "backbone.",
    without_meaning: Sequence[str] = (),
) -> Architecture:
    """One of them, by its tables."""
    table = (UNQUANTIZED, layers, *entries, Unused(layers.pattern))
    ignored = (*WITHOUT_MEANING, *_WITHOUT_MEANING, *without_meaning)
    return Architecture(
        model_type=model_type,
        class_name=class_name,
        config=ConfigMap(MambaConfig, table, ignored),
        name_map=names,
        prefix=prefix,
        canonical=canonical,
    )


ARCHITECTURES = (
    _architecture("mamba", "MambaForCausalLM", AllAlike("m"), *_MAMBA1),
    _architecture(
        *("falcon_mamba", "FalconMambaForCausalLM"),
        AllAlike("m"),
        *_MAMBA1,
        Key("mixer_rms_eps", "selective_scan.inner_norm.epsilon", 1e-6),
        Constant("selective_scan.inner_norm.kind", "rmsnorm"),
        Constant("selective_scan.inner_norm_gain", False),
    ),
    _architecture(
        *("mamba2", "Mamba2ForCausalLM"),
        AllAlike("M"),
        *_SIZES,
        *heads("num_heads", "head_dim", 64, "expand"),
        Key("state_size", "ssd.state", 128),
        Key("n_groups", "ssd.groups", 8),
        Key("conv_kernel", "ssd.conv_width", 4),
        Key("use_bias", "ssd.bias", False),
        Key("use_conv_bias", "ssd.conv_bias", True),
        Key("hidden_act", "ssd.activation", "silu", ACTIVATIONS),
        Key("layer_norm_epsilon", ("norm.epsilon", "ssd.norm_epsilon"), 1e-5),
        Key("initializer_range", "init_std", 0.1),
        Key("tie_word_embeddings", "tie_embeddings", False),
        Key("chunk_size", "ssd.chunk_size", 256),
        *steps("ssd"),
        StepLimit(),
        Only("rms_norm", True),
        # transformers puts its norm behind the gate, whatever norm_before_gate is.
        without_meaning=(
            "time_step_rank",
            "time_step_scale",
            "time_step_init_scheme",
            "norm_before_gate",
            "intermediate_size",
        ),
    ),
    _architecture(
        *("nemotron_h", "NemotronHForCausalLM"),
        BlockTypes(),
        *_SIZES,
        *_ATTENTION,
        *heads("mamba_num_heads", "mamba_head_dim", 64, "expand"),
        Key("head_dim", "attention.head_dim", 128, also=("attention_head_dim",)),
        Key("attention_bias", ("attention.qkv_bias", "attention.output_bias"), False),
        Key("ssm_state_size", "ssd.state", 128),
        Key("n_groups", "ssd.groups", 8, also=("mamba_n_groups",)),
        Key("conv_kernel", "ssd.conv_width", 4, also=("mamba_d_conv",)),
        Key("use_conv_bias", "ssd.conv_bias", True, also=("mamba_conv_bias",)),
        Key("use_bias", "ssd.bias", False),
        Key("mamba_hidden_act", "ssd.activation", "silu", ACTIVATIONS),
        Key("chunk_size", "ssd.chunk_size", 128, also=("mamba_chunk_size",)),
        *steps("ssd"),
        StepLimit(),
        Key(
            "layer_norm_epsilon",
            ("norm.epsilon", "ssd.norm_epsilon"),
            1e-5,
            also=("norm_eps", "rms_norm_eps"),
        ),
        Key("initializer_range", "init_std", 0.02),
        Key("tie_word_embeddings", "tie_embeddings", False),
        Key("hidden_dropout", "dropout", 0.0),
        Key("intermediate_size", "mlp.features", 21504),
        Key("mlp_hidden_act", ("mlp.activation", "moe.mlp.activation"), "relu2", ACTIVATIONS),
        Key("mlp_bias", ("mlp.bias", "moe.mlp.bias"), False),
        Key("n_routed_experts", "moe.experts", 8, also=("num_local_experts",)),
        Key("num_experts_per_tok", "moe.top_k", 2),
        Key("moe_intermediate_size", "moe.mlp.features", 7688),
        Key("moe_shared_expert_intermediate_size", "moe.shared_features", 7688),
        Key("moe_latent_size", "moe.latent", None),
        Key("routed_scaling_factor", "moe.router.scaling", 1.0),
        Key("norm_topk_prob", "moe.router.normalized", True),
        Constant("moe.router.scores", "sigmoid"),
        Constant("moe.router.expert_bias_rate", 1e-3),
        Only("n_group", 1),
        Only("topk_group", 1),
        Only("n_shared_experts", 1),
        Only("sliding_window", None),
        Only("num_nextn_predict_layers", 0),
        without_meaning=(
            *("max_position_embeddings", "mtp_layers_block_type", "mtp_hybrid_override_pattern"),
            *("moe_shared_expert_overlap", "output_router_logits", "mamba_proj_bias", "time_step_rank"),
            *("mamba_dt_min", "mamba_dt_max", "mamba_dt_init_floor", "mamba_expand"),
        ),
    ),
    _architecture(
        *("bamba", "BambaForCausalLM"),
        AttentionIndices(),
        *_SIZES,
        *_ATTENTION,
        *heads("mamba_n_heads", "mamba_d_head", "auto", "mamba_expand"),
        Key("attention_bias", ("attention.qkv_bias", "attention.output_bias"), False),
        RopeKeys(partial=True, default_percent=0.5),
        Key("mamba_d_state", "ssd.state", 256),
        Key("mamba_n_groups", "ssd.groups", 1),
        Key("mamba_d_conv", "ssd.conv_width", 4),
        Key("mamba_conv_bias", "ssd.conv_bias", True),
        Key("mamba_proj_bias", "ssd.bias", False),
        Key("mamba_chunk_size", "ssd.chunk_size", 256),
        StepLimit(),
        Key("hidden_act", ("ssd.activation", "mlp.activation"), "silu", ACTIVATIONS),
        Key("rms_norm_eps", ("norm.epsilon", "ssd.norm_epsilon"), 1e-5),
        Key("initializer_range", "init_std", 0.02),
        Key("tie_word_embeddings", "tie_embeddings", False),
        Key("intermediate_size", "mlp.features", 14336),
        Key("mlp_bias", "mlp.bias", False),
        Constant("mlp.gated", True),
        Key("z_loss_coefficient", "z_loss", 0.0),
        names=paired_names,
        prefix="model.",
    ),
    _architecture(
        *("jamba", "JambaForCausalLM"),
        Periods(),
        *_SIZES,
        *_ATTENTION,
        Key("mamba_d_state", "selective_scan.state", 16),
        Channels("mamba_expand"),
        Key("mamba_d_conv", "selective_scan.conv_width", 4),
        Key("mamba_conv_bias", "selective_scan.conv_bias", True),
        Key("mamba_proj_bias", "selective_scan.bias", False),
        StepRank("mamba_dt_rank", "selective_scan.dt_rank", None),
        Constant("selective_scan.inner_norm.kind", "rmsnorm"),
        Key(
            "hidden_act",
            ("selective_scan.activation", "mlp.activation", "moe.mlp.activation"),
            "silu",
            ACTIVATIONS,
        ),
        Key("rms_norm_eps", ("norm.epsilon", "selective_scan.inner_norm.epsilon"), 1e-6),
        Key("initializer_range", "init_std", 0.02),
        Key("tie_word_embeddings", "tie_embeddings", False),
        Key("intermediate_size", ("mlp.features", "moe.mlp.features"), 14336),
        Constant("mlp.gated", True),
        Constant("moe.mlp.gated", True),
        Key("num_experts_per_tok", "moe.top_k", 2),
        Constant("moe.router.normalized", False),
        names=paired_names,
        prefix="model.",
        without_meaning=("max_position_embeddings", "router_aux_loss_coef", "output_router_logits"),
    ),
)
"""Ordered: a model that several can hold is written as the first of them."""
