"""What the tables of Hugging Face's decoder-only models have in common."""

from collections.abc import Callable, Mapping, Sequence

from mjx.models.gpt.config import GPTConfig
from mjx.models.gpt.config_keys import canonical
from mjx.models.gpt.huggingface_names import llama_names
from mjx.models.interop.architecture import (
    ACTIVATIONS,
    UNQUANTIZED,
    WITHOUT_MEANING,
    Architecture,
    Quantization,
)
from mjx.models.interop.config_map import ConfigMap, Constant, Entry, Key, ResolvedKey
from mjx.models.interop.name_map import NameMap

SHARED: tuple[Entry, ...] = (
    Key("vocab_size", "vocab_size"),
    Key("hidden_size", "hidden_size"),
    Key("num_hidden_layers", "num_layers"),
    Key("num_attention_heads", "attention.num_heads"),
    Key("initializer_range", "init_std", 0.02),
    Key("attention_dropout", "attention.dropout", 0.0),
)
RMSNORM = (Constant("norm.kind", "rmsnorm"), Constant("mlp.gated", True))


def groups(default: int | None, *, null: bool = False) -> Key:
    """Key/value heads."""
    return ResolvedKey("num_key_value_heads", "attention.num_query_groups", default, null=null)


HEAD_DIM = ResolvedKey("head_dim", "attention.head_dim", None)
FEATURES = Key("intermediate_size", "mlp.features")
ALL_BIASES = Key("attention_bias", ("attention.qkv_bias", "attention.output_bias"), False)
UNTIED = Key("tie_word_embeddings", "tie_embeddings", False)
LLAMA = (
    *(*SHARED, *RMSNORM, groups(None), HEAD_DIM, FEATURES, UNTIED),
    Key("hidden_act", "mlp.activation", "silu", ACTIVATIONS),
)


def rms_epsilon(default: float, *more: str) -> Key:
    """Of all norms; `more` are those beside the sub-layers' own."""
    return Key("rms_norm_eps", ("norm.epsilon", *more), default)


def qk_norm(*, zero_centered: bool = False, over: str = "head") -> tuple[Entry, ...]:
    """Norms on queries and keys."""
    return (
        Constant("attention.qk_norm.kind", "rmsnorm"),
        Constant("attention.qk_norm.zero_centered", zero_centered),
        Constant("attention.qk_norm_over", over),
    )


def architecture(
    model_type: str,
    class_name: str,
    *entries: Entry,
    names: Callable[[GPTConfig], NameMap] = llama_names,
    prefix: str = "model.",
    without_meaning: Sequence[str] = (),
    aliases: Mapping[str, str] | None = None,
    quantization: Quantization = UNQUANTIZED,
    part: bool = False,
) -> Architecture:
    """One of them, by its tables."""
    return Architecture(
        model_type=model_type,
        class_name=class_name,
        config=ConfigMap(GPTConfig, (quantization, *entries), (*WITHOUT_MEANING, *without_meaning)),
        name_map=names,
        prefix=prefix,
        canonical=canonical,
        aliases=aliases or {},
        part=part,
    )
