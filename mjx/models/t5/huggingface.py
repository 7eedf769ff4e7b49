"""Hugging Face's encoder-decoders that a T5 can be."""

from collections.abc import Callable, Sequence
from typing import Any

from mjx.models.interop.architecture import ACTIVATIONS, UNQUANTIZED, WITHOUT_MEANING, Architecture
from mjx.models.interop.config_map import ConfigMap, Constant, Entry, Key, Only, ResolvedKey
from mjx.models.interop.name_map import NameMap
from mjx.models.t5.config import T5Config
from mjx.models.t5.config_keys import canonical
from mjx.models.t5.huggingface_keys import (
    DecoderLayers,
    EmbeddingScale,
    EncoderLayers,
    FeedForward,
    OffsetPositions,
    ScaledHead,
    UnscaledHead,
    tied_without_head,
)
from mjx.models.t5.huggingface_names import bart_names, t5_names


def _architecture(
    model_type: str,
    class_name: str,
    *entries: Entry,
    names: Callable[[T5Config], NameMap],
    prefix: str,
    without_meaning: Sequence[str] = (),
    **others: Any,
) -> Architecture:
    return Architecture(
        model_type=model_type,
        class_name=class_name,
        config=ConfigMap(T5Config, (UNQUANTIZED, *entries), (*WITHOUT_MEANING, *without_meaning)),
        name_map=names,
        prefix=prefix,
        canonical=canonical,
        **others,
    )


_ONLY_ENCODER_DECODER = Only("is_encoder_decoder", True)

_WITHOUT_MEANING_IN_T5 = ("initializer_factor", "n_positions")
"""Of initial weights, and how long the rows were."""


def _t5(vocab_size: int, layers: int, heads: int, features: int, feed_forward: str) -> tuple[Entry, ...]:
    """All but the head, with what is taken where a key is missing."""
    return (
        Key("vocab_size", "vocab_size", vocab_size),
        Key("d_model", "hidden_size", 512, also=("hidden_size",)),
        EncoderLayers("num_layers", "encoder_layers", layers, also=("num_hidden_layers",)),
        DecoderLayers("num_decoder_layers", like="num_layers", default=layers),
        Key("num_heads", "attention.num_heads", heads, also=("num_attention_heads",)),
        ResolvedKey("d_kv", "attention.head_dim", 64, also=("head_dim",)),
        Key("relative_attention_num_buckets", "attention.relative_bias.buckets", 32),
        Key("relative_attention_max_distance", "attention.relative_bias.max_distance", 128),
        Constant("attention.scale", 1.0),
        Key("d_ff", "mlp.features", features),
        FeedForward(feed_forward),
        Key("dropout_rate", ("dropout", "attention.dropout"), 0.1),
        Key("layer_norm_epsilon", "norm.epsilon", 1e-6),
        Constant("norm.kind", "rmsnorm"),
        _ONLY_ENCODER_DECODER,
    )


ARCHITECTURES = (
    _architecture(
        *("t5", "T5ForConditionalGeneration"),
        *_t5(vocab_size=32128, layers=6, heads=8, features=2048, feed_forward="relu"),
        ScaledHead(),
        names=t5_names,
        prefix="",
        without_meaning=_WITHOUT_MEANING_IN_T5,
        told=tied_without_head,
    ),
    _architecture(
        *("mt5", "MT5ForConditionalGeneration"),
        *_t5(vocab_size=250112, layers=8, heads=6, features=1024, feed_forward="gated-gelu"),
        UnscaledHead(),
        names=t5_names,
        prefix="",
        without_meaning=_WITHOUT_MEANING_IN_T5,
        told=tied_without_head,
    ),
    _architecture(
        *("bart", "BartForConditionalGeneration"),
        Key("vocab_size", "vocab_size", 50265),
        Key("d_model", "hidden_size", 1024, also=("hidden_size",)),
        EncoderLayers("encoder_layers", "encoder_layers", 12, also=("num_hidden_layers",)),
        DecoderLayers("decoder_layers", default=12),
        Key(
            *("encoder_attention_heads", "attention.num_heads", 16),
            also=("decoder_attention_heads", "num_attention_heads"),
        ),
        Key("encoder_ffn_dim", "mlp.features", 4096, also=("decoder_ffn_dim",)),
        OffsetPositions(2, default=1024),
        Key("activation_function", "mlp.activation", "gelu", ACTIVATIONS),
        Key("dropout", "dropout", 0.1),
        Key("attention_dropout", "attention.dropout", 0.0),
        Key("init_std", "init_std", 0.02),
        EmbeddingScale(),
        Only("tie_word_embeddings", True),
        # Of configs before transformers 4, which are not BART's: mBART's and Marian's.
        Only("normalize_before", False),
        Only("add_final_layer_norm", False),
        Only("normalize_embedding", True),
        Only("static_position_embeddings", False),
        _ONLY_ENCODER_DECODER,
        *(Constant("tie_embeddings", True), Constant("head_bias", True)),
        *(Constant("separate_positions", True), Constant("norm_placement", "residual")),
        *(Constant("embedding_norm.kind", "layernorm"), Constant("norm.kind", "layernorm")),
        *(Constant("mlp.bias", True), Constant("attention.qkv_bias", True)),
        Constant("attention.output_bias", True),
        names=bart_names,
        prefix="model.",
        zeros=("final_logits_bias",),
        without_meaning=(
            # Of training, by its own layers' dropout
            *("activation_dropout", "encoder_layerdrop", "decoder_layerdrop", "classif_dropout"),
            # Of other heads, of generation, and what the bias is there for without it
            *("add_bias_logits", "extra_pos_embeddings", "force_bos_token_to_be_generated"),
        ),
    ),
)
"""Ordered: a model that several can hold is written as the first of them."""
