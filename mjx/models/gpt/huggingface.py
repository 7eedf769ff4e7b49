"""Hugging Face's decoder-only models that a GPT can be."""

from collections.abc import Mapping
from typing import Any

from mjx.models.gpt.huggingface_entries import (
    ALL_BIASES,
    FEATURES,
    HEAD_DIM,
    LLAMA,
    RMSNORM,
    SHARED,
    UNTIED,
    architecture,
    groups,
    qk_norm,
    rms_epsilon,
)
from mjx.models.gpt.huggingface_keys import (
    EmbeddingScale,
    InnerFeatures,
    LayerTypes,
    ScoreScalar,
    UnscaledScores,
)
from mjx.models.gpt.huggingface_moe import MIXTURES
from mjx.models.gpt.huggingface_names import clip_text_names, gpt2_names, gpt_neox_names, phi3_names
from mjx.models.interop.architecture import ACTIVATIONS
from mjx.models.interop.config_map import Constant, Key, Only, ResolvedKey
from mjx.models.interop.rope_keys import RopeKeys

_QWEN_WINDOW = LayerTypes(
    lambda theirs, layer: layer >= theirs.get("max_window_layers", 28),
    older=("max_window_layers",),
    enabled="use_sliding_window",
)
_GEMMA = (
    *(*SHARED, *RMSNORM),
    groups(4),
    ResolvedKey("head_dim", "attention.head_dim", 256),
    *(FEATURES, ALL_BIASES),
    Key("hidden_activation", "mlp.activation", "gelu_pytorch_tanh", ACTIVATIONS),
    Key("tie_word_embeddings", "tie_embeddings", True),
    Constant("norm.zero_centered", True),
    Constant("norm_placement", "both"),
    *(EmbeddingScale(), ScoreScalar()),
    Only("use_bidirectional_attention", False),
)


ARCHITECTURES = (
    architecture(
        *("gpt2", "GPT2LMHeadModel"),
        Key("vocab_size", "vocab_size", 50257),
        Key("n_embd", "hidden_size", also=("hidden_size",)),
        Key("n_layer", "num_layers", also=("num_hidden_layers",)),
        Key("n_head", "attention.num_heads", also=("num_attention_heads",)),
        Key("n_positions", "max_positions", 1024, also=("max_position_embeddings",)),
        InnerFeatures(),
        Key(
            *("activation_function", "mlp.activation", "gelu_new"),
            {"gelu_new": "gelu-tanh", **ACTIVATIONS},
        ),
        Key("layer_norm_epsilon", "norm.epsilon", 1e-5),
        Key("initializer_range", "init_std", 0.02),
        Key("resid_pdrop", "dropout", 0.1),
        Key("embd_pdrop", "embedding_dropout", 0.1),
        Key("attn_pdrop", "attention.dropout", 0.1),
        Key("tie_word_embeddings", "tie_embeddings", True),
        UnscaledScores(),
        Only("scale_attn_by_inverse_layer_idx", False),
        Only("add_cross_attention", False),
        Constant("mlp.bias", True),
        Constant("attention.qkv_bias", True),
        Constant("attention.output_bias", True),
        names=gpt2_names,
        prefix="transformer.",
        without_meaning=(
            *("reorder_and_upcast_attn", "n_ctx", "summary_activation", "summary_first_dropout"),
            *("summary_proj_to_labels", "summary_type", "summary_use_proj"),
        ),
    ),
    architecture(
        *("llama", "LlamaForCausalLM"),
        *(*LLAMA, ALL_BIASES, rms_epsilon(1e-6), RopeKeys()),
        Key("mlp_bias", "mlp.bias", False),
        Only("rope_interleaved", False),
        # transformers reads hidden_act alone, whatever `activation` calls the gated MLP of Falcon 3.
        without_meaning=("is_llama_config", "activation"),
    ),
    architecture(
        *("mistral", "MistralForCausalLM"),
        *(*LLAMA, rms_epsilon(1e-6), RopeKeys(), groups(8, null=True)),
        Key("sliding_window", "attention.window", 4096, null=True),
    ),
    architecture(
        *("qwen2", "Qwen2ForCausalLM"),
        *(*LLAMA, rms_epsilon(1e-6), RopeKeys(), _QWEN_WINDOW, groups(32, null=True)),
        Constant("attention.qkv_bias", True),
        Only("use_mrope", False),
    ),
    *(
        architecture(
            *(kind, class_name),
            *(*LLAMA, rms_epsilon(1e-5), _QWEN_WINDOW, groups(8, null=True)),
            RopeKeys(default_base=1e6, renamed={"mrope": "default"}, sections=(16, 24, 24)),
            Constant("attention.qkv_bias", True),
            # Its tokens say it in the model around it.
            without_meaning=("vision_start_token_id", "vision_end_token_id", "vision_token_id"),
        )
        for kind, class_name in (
            ("qwen2_vl_text", "Qwen2VLTextModel"),
            ("qwen2_5_vl_text", "Qwen2_5_VLTextModel"),
        )
    ),
    architecture(
        *("qwen3", "Qwen3ForCausalLM"),
        *(*LLAMA, ALL_BIASES, RopeKeys(), _QWEN_WINDOW, groups(32, null=True)),
        ResolvedKey("head_dim", "attention.head_dim", 128),
        *(*qk_norm(), rms_epsilon(1e-6, "attention.qk_norm.epsilon")),
    ),
    architecture(
        *("phi3", "Phi3ForCausalLM"),
        *(*LLAMA, rms_epsilon(1e-5)),
        RopeKeys(
            partial=True,
            default_original=4096,
            kind_key="type",
            renamed={"su": "longrope", "yarn": "longrope"},
            only=("longrope",),
        ),
        Key("sliding_window", "attention.window", None, null=True),
        Key("resid_pdrop", "dropout", 0.0),
        Constant("embedding_dropout", 0.0),  # transformers reads embd_pdrop, and uses it nowhere
        names=phi3_names,
        without_meaning=("embd_pdrop", "full_attn_mod", "interpolate_factor"),  # of Phi-4-mini's own code
    ),
    architecture(
        *("olmo2", "Olmo2ForCausalLM"),
        *(*LLAMA, ALL_BIASES, RopeKeys(kind_key="type"), Constant("norm_placement", "output")),
        *(*qk_norm(over="all_heads"), rms_epsilon(1e-5, "attention.qk_norm.epsilon")),
    ),
    architecture(
        *("gemma2", "Gemma2ForCausalLM"),
        *(*_GEMMA, rms_epsilon(1e-6), RopeKeys()),
        LayerTypes(lambda theirs, layer: layer % 2 == 0, older=()),
        Key("attn_logit_softcapping", "attention.soft_cap", 50.0, null=True),
        Key("final_logit_softcapping", "logit_soft_cap", 30.0, null=True),
        without_meaning=("hidden_act", "sliding_window_size"),
    ),
    architecture(
        *("gemma3_text", "Gemma3ForCausalLM"),
        *_GEMMA,
        *(*qk_norm(zero_centered=True), rms_epsilon(1e-6, "attention.qk_norm.epsilon")),
        gemma3_layers := LayerTypes(
            lambda theirs, layer: (layer + 1) % _sliding_period(theirs) != 0,
            older=("sliding_window_pattern", "_sliding_window_pattern"),
        ),
        RopeKeys(default_base=1e6, within="full_attention"),
        RopeKeys(
            field="window_rope",
            base="rope_local_base_freq",
            within="sliding_attention",
            scaled=False,
            unless=lambda theirs: not any(gemma3_layers.pattern(theirs)),
        ),
        Key("final_logit_softcapping", "logit_soft_cap", None, null=True),
        # transformers reads attn_logit_softcapping, and uses it nowhere.
        without_meaning=("hidden_act", "attn_logit_softcapping"),
    ),
    architecture(
        *("nemotron", "NemotronForCausalLM"),
        *(*SHARED, groups(None), HEAD_DIM, FEATURES, ALL_BIASES, UNTIED),
        RopeKeys(partial=True, default_percent=0.5),
        Key("initializer_range", "init_std", 0.0134),
        Key("hidden_act", "mlp.activation", "relu2", {"relu2": "relu2", **ACTIVATIONS}),
        Key("mlp_bias", "mlp.bias", False),
        Key("norm_eps", "norm.epsilon", 1e-5),
        Constant("norm.zero_centered", True),
    ),
    architecture(
        *("gpt_neox", "GPTNeoXForCausalLM"),
        *(*SHARED, FEATURES, UNTIED),
        Key("attention_bias", ("attention.qkv_bias", "attention.output_bias"), True),
        Key("hidden_act", "mlp.activation", "gelu", ACTIVATIONS),
        Key("hidden_dropout", "dropout", 0.0),
        Key("layer_norm_eps", "norm.epsilon", 1e-5),
        Key("use_parallel_residual", "parallel_residual", True),
        Constant("mlp.bias", True),
        RopeKeys(
            base="rotary_emb_base",
            percent="rotary_pct",
            partial=True,
            default_percent=0.25,
            twins={"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"},
        ),
        names=gpt_neox_names,
        prefix="gpt_neox.",
        without_meaning=("num_steps",),  # of training (Polyglot)
        aliases={r"lm_head\.weight": "embed_out.weight"},  # as transformers 5 calls it in memory
    ),
    *MIXTURES,
    architecture(
        *("clip_text_model", "CLIPTextModel"),
        Key("vocab_size", "vocab_size", 49408),
        Key("hidden_size", "hidden_size", 512),
        Key("num_hidden_layers", "num_layers", 12),
        Key("num_attention_heads", "attention.num_heads", 8),
        Key("intermediate_size", "mlp.features", 2048),
        Key("max_position_embeddings", "max_positions", 77),
        Key("hidden_act", "mlp.activation", "quick_gelu", ACTIVATIONS),
        Key("layer_norm_eps", "norm.epsilon", 1e-5),
        Key("attention_dropout", "attention.dropout", 0.0),
        Key("initializer_range", "init_std", 0.02),
        Constant("mlp.bias", True),
        Constant("attention.qkv_bias", True),
        Constant("attention.output_bias", True),
        Constant("tie_embeddings", True),
        Only("add_cross_attention", False),
        names=clip_text_names,
        prefix="",
        without_meaning=("initializer_factor", "projection_dim", "dropout"),
        part=True,
    ),
)
"""Ordered: a model that several can hold is written as the first of them."""


def _sliding_period(theirs: Mapping[str, Any]) -> int:
    return theirs.get("sliding_window_pattern") or theirs.get("_sliding_window_pattern") or 6
