"""Hugging Face's decoder-only models that a GPT can be."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mjx.models.gpt.config import GPTConfig
from mjx.models.gpt.config_keys import AttentionKey, canonical
from mjx.models.gpt.huggingface_keys import (
    EmbeddingScale,
    InnerFeatures,
    LayerTypes,
    ScoreScalar,
    UnscaledScores,
)
from mjx.models.gpt.huggingface_names import gpt2_names, gpt_neox_names, llama_names, phi3_names
from mjx.models.interop.architecture import WITHOUT_MEANING, Architecture
from mjx.models.interop.config_map import ConfigMap, Constant, Entry, Key, Only
from mjx.models.interop.name_map import NameMap
from mjx.models.interop.rope_keys import RopeKeys

_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu-tanh",
    "gelu_new": "gelu-tanh",
    "gelu_fast": "gelu-tanh",
    "gelu_accurate": "gelu-tanh",
    "gelu_python_tanh": "gelu-tanh",
    "relu": "relu",
    "relu2": "relu2",
    "relu_squared": "relu2",
    "quick_gelu": "quick-gelu",
}

_SHARED: tuple[Entry, ...] = (
    Key("vocab_size", "vocab_size"),
    Key("hidden_size", "hidden_size"),
    Key("num_hidden_layers", "num_layers"),
    Key("num_attention_heads", "attention.num_heads"),
    Key("initializer_range", "init_std", 0.02),
    Key("attention_dropout", "attention.dropout", 0.0),
)
_RMSNORM = (Constant("norm.kind", "rmsnorm"), Constant("mlp.gated", True))


def _groups(default: int | None, *, null: bool = False) -> Key:
    return AttentionKey("num_key_value_heads", "attention.num_query_groups", default, null=null)


_HEAD_DIM = AttentionKey("head_dim", "attention.head_dim", None)
_FEATURES = Key("intermediate_size", "mlp.features")
_ALL_BIASES = Key("attention_bias", ("attention.qkv_bias", "attention.output_bias"), False)
_SILU = Key("hidden_act", "mlp.activation", "silu", _ACTIVATIONS)
_UNTIED = Key("tie_word_embeddings", "tie_embeddings", False)
_LLAMA = (*_SHARED, *_RMSNORM, _groups(None), _HEAD_DIM, _FEATURES, _SILU, _UNTIED)
_QWEN_WINDOW = LayerTypes(
    lambda theirs, layer: layer >= theirs.get("max_window_layers", 28),
    older=("max_window_layers",),
    enabled="use_sliding_window",
)
_GEMMA = (
    *(*_SHARED, *_RMSNORM),
    _groups(4),
    AttentionKey("head_dim", "attention.head_dim", 256),
    *(_FEATURES, _ALL_BIASES),
    Key("hidden_activation", "mlp.activation", "gelu_pytorch_tanh", _ACTIVATIONS),
    Key("tie_word_embeddings", "tie_embeddings", True),
    Constant("norm.zero_centered", True),
    Constant("norm_placement", "both"),
    *(EmbeddingScale(), ScoreScalar()),
    Only("use_bidirectional_attention", False),
)


def _rms_epsilon(default: float, *more: str) -> Key:
    return Key("rms_norm_eps", ("norm.epsilon", *more), default)


def _qk_norm(*, zero_centered: bool = False, over: str = "head") -> tuple[Entry, ...]:
    return (
        Constant("attention.qk_norm.kind", "rmsnorm"),
        Constant("attention.qk_norm.zero_centered", zero_centered),
        Constant("attention.qk_norm_over", over),
    )


def _architecture(
    model_type: str,
    class_name: str,
    *entries: Entry,
    names: Callable[[GPTConfig], NameMap] = llama_names,
    prefix: str = "model.",
    without_meaning: Sequence[str] = (),
    aliases: Mapping[str, str] | None = None,
) -> Architecture:
    return Architecture(
        model_type=model_type,
        class_name=class_name,
        config=ConfigMap(GPTConfig, entries, (*WITHOUT_MEANING, *without_meaning)),
        name_map=names,
        prefix=prefix,
        canonical=canonical,
        aliases=aliases or {},
    )


ARCHITECTURES = (
    _architecture(
        *("gpt2", "GPT2LMHeadModel"),
        Key("vocab_size", "vocab_size", 50257),
        Key("n_embd", "hidden_size", also=("hidden_size",)),
        Key("n_layer", "num_layers", also=("num_hidden_layers",)),
        Key("n_head", "attention.num_heads", also=("num_attention_heads",)),
        Key("n_positions", "max_positions", 1024, also=("max_position_embeddings",)),
        InnerFeatures(),
        Key(
            *("activation_function", "mlp.activation", "gelu_new"),
            {"gelu_new": "gelu-tanh", **_ACTIVATIONS},
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
    _architecture(
        *("llama", "LlamaForCausalLM"),
        *(*_LLAMA, _ALL_BIASES, _rms_epsilon(1e-6), RopeKeys()),
        Key("mlp_bias", "mlp.bias", False),
        Only("rope_interleaved", False),
        # transformers reads hidden_act alone, whatever `activation` calls the gated MLP of Falcon 3.
        without_meaning=("is_llama_config", "activation"),
    ),
    _architecture(
        *("mistral", "MistralForCausalLM"),
        *(*_LLAMA, _rms_epsilon(1e-6), RopeKeys(), _groups(8, null=True)),
        Key("sliding_window", "attention.window", 4096, null=True),
    ),
    _architecture(
        *("qwen2", "Qwen2ForCausalLM"),
        *(*_LLAMA, _rms_epsilon(1e-6), RopeKeys(), _QWEN_WINDOW, _groups(32, null=True)),
        Constant("attention.qkv_bias", True),
        Only("use_mrope", False),
    ),
    _architecture(
        *("qwen3", "Qwen3ForCausalLM"),
        *(*_LLAMA, _ALL_BIASES, RopeKeys(), _QWEN_WINDOW, _groups(32, null=True)),
        AttentionKey("head_dim", "attention.head_dim", 128),
        *(*_qk_norm(), _rms_epsilon(1e-6, "attention.qk_norm.epsilon")),
    ),
    _architecture(
        *("phi3", "Phi3ForCausalLM"),
        *(*_LLAMA, _rms_epsilon(1e-5)),
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
    _architecture(
        *("olmo2", "Olmo2ForCausalLM"),
        *(*_LLAMA, _ALL_BIASES, RopeKeys(kind_key="type"), Constant("norm_placement", "output")),
        *(*_qk_norm(over="all_heads"), _rms_epsilon(1e-5, "attention.qk_norm.epsilon")),
    ),
    _architecture(
        *("gemma2", "Gemma2ForCausalLM"),
        *(*_GEMMA, _rms_epsilon(1e-6), RopeKeys()),
        LayerTypes(lambda theirs, layer: layer % 2 == 0, older=()),
        Key("attn_logit_softcapping", "attention.soft_cap", 50.0, null=True),
        Key("final_logit_softcapping", "logit_soft_cap", 30.0, null=True),
        without_meaning=("hidden_act", "sliding_window_size"),
    ),
    _architecture(
        *("gemma3_text", "Gemma3ForCausalLM"),
        *_GEMMA,
        *(*_qk_norm(zero_centered=True), _rms_epsilon(1e-6, "attention.qk_norm.epsilon")),
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
    _architecture(
        *("nemotron", "NemotronForCausalLM"),
        *(*_SHARED, _groups(None), _HEAD_DIM, _FEATURES, _ALL_BIASES, _UNTIED),
        RopeKeys(partial=True, default_percent=0.5),
        Key("initializer_range", "init_std", 0.0134),
        Key("hidden_act", "mlp.activation", "relu2", {"relu2": "relu2", **_ACTIVATIONS}),
        Key("mlp_bias", "mlp.bias", False),
        Key("norm_eps", "norm.epsilon", 1e-5),
        Constant("norm.zero_centered", True),
    ),
    _architecture(
        *("gpt_neox", "GPTNeoXForCausalLM"),
        *(*_SHARED, _FEATURES, _UNTIED),
        Key("attention_bias", ("attention.qkv_bias", "attention.output_bias"), True),
        Key("hidden_act", "mlp.activation", "gelu", _ACTIVATIONS),
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
        aliases={"lm_head.weight": "embed_out.weight"},  # as transformers 5 calls it in memory
    ),
)
"""Ordered: a model that several can hold is written as the first of them."""


def _sliding_period(theirs: Mapping[str, Any]) -> int:
    return theirs.get("sliding_window_pattern") or theirs.get("_sliding_window_pattern") or 6
