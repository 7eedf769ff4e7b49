"""Hugging Face's encoders that a BERT can be; of one `model_type` there is a class for every set of heads."""

from mjx.models.bert.huggingface_entries import (
    NO_TOKEN_HEAD,
    POOLER,
    FirstPosition,
    LocalLayers,
    architecture,
)
from mjx.models.bert.huggingface_names import (
    bert_names,
    modernbert_names,
    roberta_names,
    siglip_text_names,
)
from mjx.models.interop.architecture import ACTIVATIONS
from mjx.models.interop.class_keys import Classes
from mjx.models.interop.config_map import Constant, Entry, Key, Only
from mjx.models.interop.rope_keys import RopeKeys


def _first(vocab_size: int) -> tuple[Entry, ...]:
    """Of BERT's layers, behind each of which there is a norm, and of all heads."""
    return (
        Key("vocab_size", "vocab_size", vocab_size),
        Key("hidden_size", "hidden_size", 768),
        Key("num_hidden_layers", "num_layers", 12),
        Key("num_attention_heads", "attention.num_heads", 12),
        Key("intermediate_size", "mlp.features", 3072),
        Key("hidden_dropout_prob", "dropout", 0.1),
        Key("attention_probs_dropout_prob", "attention.dropout", 0.1),
        Key("max_position_embeddings", "max_positions", 512),
        Key("type_vocab_size", "token_types", 2),
        Key("initializer_range", "init_std", 0.02),
        Key(
            "layer_norm_eps", ("norm.epsilon", "embedding_norm.epsilon", "head_transform.norm.epsilon"), 1e-12
        ),
        Constant("norm_placement", "residual"),
        Constant("attention.qkv_bias", value=True),
        Constant("attention.output_bias", value=True),
        Constant("mlp.bias", value=True),
        Constant("head_bias", value=True),
        Constant("tie_embeddings", value=True),
        Only("tie_word_embeddings", value=True),
        Only("position_embedding_type", "absolute"),
        Only("is_decoder", value=False),
        Only("add_cross_attention", value=False),
    )


_BERT = (
    *_first(30522),
    Key("hidden_act", ("mlp.activation", "head_transform.activation"), "gelu", ACTIVATIONS),
)
_ROBERTA = (
    *_first(50265),
    Key("hidden_act", "mlp.activation", "gelu", ACTIVATIONS),
    Constant("head_transform.activation", "gelu"),
    FirstPosition(),
)
_NORM_OF_TENSORFLOW = {r"(.*LayerNorm)\.gamma": r"\1.weight", r"(.*LayerNorm)\.beta": r"\1.bias"}
"""What the conversions of Google's checkpoints call a norm's gain and bias."""

_local = LocalLayers()
_MODERN = (
    Key("vocab_size", "vocab_size", 50368),
    Key("hidden_size", "hidden_size", 768),
    Key("num_hidden_layers", "num_layers", 22),
    Key("num_attention_heads", "attention.num_heads", 12),
    Key("intermediate_size", "mlp.features", 1152),
    Key("hidden_activation", "mlp.activation", "gelu", ACTIVATIONS),
    Key("initializer_range", "init_std", 0.02),
    Key("norm_eps", ("norm.epsilon", "embedding_norm.epsilon", "head_transform.norm.epsilon"), 1e-5),
    Key("norm_bias", ("norm.bias", "embedding_norm.bias", "head_transform.norm.bias"), default=False),
    Key("attention_bias", ("attention.qkv_bias", "attention.output_bias"), default=False),
    Key("mlp_bias", "mlp.bias", default=False),
    Key("attention_dropout", "attention.dropout", 0.0),
    Key("mlp_dropout", "dropout", 0.0),
    Key("embedding_dropout", "embedding_dropout", 0.0),
    Constant("mlp.gated", value=True),
    Constant("first_norm", value=False),
    _local,
    RopeKeys(base="global_rope_theta", default_base=160_000.0, within="full_attention"),
    RopeKeys(
        field="window_rope",
        base="local_rope_theta",
        within="sliding_attention",
        scaled=False,
        unless=lambda theirs: not any(_local.local(theirs)),
    ),
)
_MODERN_HEAD = (
    Key("classifier_activation", "head_transform.activation", "gelu", ACTIVATIONS),
    Key("classifier_bias", "head_transform.bias", default=False),
)
"""The layer in front of the head, of tokens or of classes."""
_MODERN_WITHOUT_MEANING = (
    *("reference_compile", "repad_logits_with_grad", "deterministic_flash_attn", "position_embedding_type"),
    *("sparse_prediction", "sparse_pred_ignore_index", "initializer_cutoff_factor", "layer_norm_eps"),
)

ARCHITECTURES = (
    architecture(
        *("bert", "BertForPreTraining"),
        *(*_BERT, POOLER, Constant("sentence_head", value=True)),
        names=bert_names,
        prefix="bert.",
        aliases=_NORM_OF_TENSORFLOW,
    ),
    architecture(
        *("bert", "BertForMaskedLM"), *_BERT, names=bert_names, prefix="bert.", aliases=_NORM_OF_TENSORFLOW
    ),
    architecture(
        *("bert", "BertModel"),
        *(*_BERT, *NO_TOKEN_HEAD, POOLER),
        names=bert_names,
        prefix="",
        aliases=_NORM_OF_TENSORFLOW,
    ),
    architecture(
        *("bert", "BertForSequenceClassification"),
        *(*_BERT, *NO_TOKEN_HEAD, POOLER, Classes()),
        names=bert_names,
        prefix="bert.",
        aliases=_NORM_OF_TENSORFLOW,
    ),
    architecture(*("roberta", "RobertaForMaskedLM"), *_ROBERTA, names=roberta_names, prefix="roberta."),
    architecture(
        *("roberta", "RobertaModel"), *(*_ROBERTA, *NO_TOKEN_HEAD, POOLER), names=roberta_names, prefix=""
    ),
    architecture(
        *("roberta", "RobertaForSequenceClassification"),
        *(*_ROBERTA, *NO_TOKEN_HEAD, POOLER, Classes()),
        names=roberta_names,
        prefix="roberta.",
    ),
    architecture(
        *("modernbert", "ModernBertForMaskedLM"),
        *_MODERN,
        Key("tie_word_embeddings", "tie_embeddings", default=True),
        *_MODERN_HEAD,
        Key("decoder_bias", "head_bias", default=True),
        names=modernbert_names,
        prefix="model.",
        without_meaning=(*_MODERN_WITHOUT_MEANING, "classifier_pooling"),
    ),
    architecture(
        *("modernbert", "ModernBertModel"),
        *(*_MODERN, *NO_TOKEN_HEAD, Constant("tie_embeddings", value=True)),
        names=modernbert_names,
        prefix="",
        without_meaning=(
            *_MODERN_WITHOUT_MEANING,
            *(
                "classifier_pooling",
                "classifier_activation",
                "classifier_bias",
                "decoder_bias",
                "tie_word_embeddings",
            ),
        ),
    ),
    architecture(
        *("modernbert", "ModernBertForSequenceClassification"),
        *_MODERN,
        Constant("head_bias", value=False),
        Constant("tie_embeddings", value=True),
        *_MODERN_HEAD,
        Key("classifier_pooling", "pooling", "cls", {"cls": "first", "mean": "mean"}),
        Classes(),
        names=modernbert_names,
        prefix="model.",
        without_meaning=(*_MODERN_WITHOUT_MEANING, "decoder_bias", "tie_word_embeddings"),
    ),
    architecture(
        *("siglip_text_model", "SiglipTextModel"),
        Key("vocab_size", "vocab_size", 32000),
        Key("hidden_size", "hidden_size", 768),
        Key("num_hidden_layers", "num_layers", 12),
        Key("num_attention_heads", "attention.num_heads", 12),
        Key("intermediate_size", "mlp.features", 3072),
        Key("max_position_embeddings", "max_positions", 64),
        Key("hidden_act", "mlp.activation", "gelu_pytorch_tanh", ACTIVATIONS),
        Key("layer_norm_eps", "norm.epsilon", 1e-6),
        Key("attention_dropout", "attention.dropout", 0.0),
        Key("initializer_range", "init_std", 0.02),
        Constant("attention.qkv_bias", value=True),
        Constant("attention.output_bias", value=True),
        Constant("mlp.bias", value=True),
        Constant("tie_embeddings", value=True),
        *NO_TOKEN_HEAD,
        names=siglip_text_names,
        prefix="",
        without_meaning=("initializer_factor", "projection_size", "dropout"),
        part=True,
    ),
)
"""Ordered: a model that several can hold is written as the first of them."""
