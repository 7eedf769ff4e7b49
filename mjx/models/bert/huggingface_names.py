"""How Hugging Face's encoders name their tensors, and how these lie in ours."""

from collections.abc import Mapping, Sequence

from mjx.models.bert.config import BertConfig
from mjx.models.interop.mixer_rows import (
    FROM_HEADS,
    HEADS_BIAS,
    NARROW,
    TO_HEADS,
    WIDE,
    norm_rows,
    text_tower_rows,
)
from mjx.models.interop.name_map import NameMap, Row
from mjx.models.interop.stack_map import in_pairs, stack_name_map

DENSE = "latent embed -> embed latent"
"""A layer of the pooler, or in front of the head."""
_CLASSES = "classes latent -> latent classes"
_ATTENTION = "{attention}.attention"
_QKV = ("query", "key", "value")
_GATE_AND_UP = ("{mlp}.mlp.gate.kernel", "{mlp}.mlp.up.kernel")


def bert_names(config: BertConfig, prefix: str) -> NameMap:
    """BERT's: heads under `cls`, the rest under `prefix`, which the model without heads lacks."""
    rows = [
        *_encoder_rows(config, prefix),
        *dense_rows(f"{prefix}pooler.dense", "pooler", config.pooler),
        *head_transform_rows(config, "cls.predictions.transform", "dense", "LayerNorm"),
    ]
    if config.head_bias:
        rows.append(Row("cls.predictions.bias", "head_bias", rows=config.vocab_size))
    if config.sentence_head:
        rows += _classifier_rows("cls.seq_relationship", "sentence_head")
    if config.classes is not None:
        rows += _classifier_rows("classifier", "classifier")
    copies = {
        "cls.predictions.decoder.weight": f"{prefix}embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }
    # Checkpoints of the pre-trained model are called its parts', whose classes pass over the other heads.
    other = () if config.pooler else (rf"{prefix}pooler\.dense\.(weight|bias)",)
    other += () if config.sentence_head else (r"cls\.seq_relationship\.(weight|bias)",)
    return _name_map(config, rows, prefix, copies if config.head_bias else {}, other)


def roberta_names(config: BertConfig, prefix: str) -> NameMap:
    """RoBERTa's: BERT's layers, with a `lm_head`, and a classifier that has the pooler of its own."""
    pooler = f"{prefix}pooler.dense" if config.classes is None else "classifier.dense"
    rows = [
        *_encoder_rows(config, prefix),
        *dense_rows(pooler, "pooler", config.pooler),
        *head_transform_rows(config, "lm_head", "dense", "layer_norm"),
    ]
    if config.head_bias:
        rows.append(Row("lm_head.bias", "head_bias", rows=config.vocab_size))
    if config.classes is not None:
        rows += _classifier_rows("classifier.out_proj", "classifier")
    copies = {
        "lm_head.decoder.weight": f"{prefix}embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    }
    other = () if config.pooler and config.classes is None else (rf"{prefix}pooler\.dense\.(weight|bias)",)
    return _name_map(config, rows, prefix, copies if config.head_bias else {}, other)


def modernbert_names(config: BertConfig, prefix: str) -> NameMap:
    """ModernBERT's: queries, keys and values in one tensor, and what is activated and its gate in another."""
    layer, attention, table = (
        f"{prefix}layers.{{layer}}",
        config.attention,
        "embeddings.tok_embeddings.weight",
    )
    assert config.embedding_norm is not None
    rows = [
        Row(f"{prefix}{table}", "embedding.weight", rows=config.vocab_size),
        *norm_rows(config.embedding_norm, f"{prefix}embeddings.norm", "embedding_norm"),
        *_of_later_layers(config, norm_rows(config.norm, f"{layer}.attn_norm", "{attention}.norm")),
        Row(
            f"{layer}.attn.Wqkv.weight",
            tuple(f"{_ATTENTION}.{name}.kernel" for name in _QKV),
            "([heads] head_dim) embed -> embed heads head_dim",
        ),
        Row(f"{layer}.attn.Wo.weight", f"{_ATTENTION}.output.kernel", FROM_HEADS),
        *norm_rows(config.norm, f"{layer}.mlp_norm", "{mlp}.norm"),
        Row(f"{layer}.mlp.Wi.weight", _GATE_AND_UP, "[mlp] embed -> embed mlp"),
        Row(f"{layer}.mlp.Wo.weight", "{mlp}.mlp.down.kernel", NARROW),
        *norm_rows(config.norm, f"{prefix}final_norm", "final_norm"),
        *head_transform_rows(config, "head", "dense", "norm"),
    ]
    if attention.qkv_bias:
        biases = tuple(f"{_ATTENTION}.{name}.bias" for name in _QKV)
        rows.append(Row(f"{layer}.attn.Wqkv.bias", biases, "([heads] head_dim) -> heads head_dim"))
        rows.append(Row(f"{layer}.attn.Wo.bias", f"{_ATTENTION}.output.bias"))
    if config.mlp.bias:
        rows.append(Row(f"{layer}.mlp.Wi.bias", ("{mlp}.mlp.gate.bias", "{mlp}.mlp.up.bias"), "[mlp] -> mlp"))
        rows.append(Row(f"{layer}.mlp.Wo.bias", "{mlp}.mlp.down.bias"))
    if config.head_bias:
        rows.append(Row("decoder.bias", "head_bias", rows=config.vocab_size))
    if config.classes is not None:
        rows += _classifier_rows("classifier", "classifier")
    of_tokens = config.head_transform is not None and config.classes is None
    copies = {"decoder.weight": f"{prefix}{table}"} if of_tokens else {}
    if not config.tie_embeddings:
        rows.append(Row("decoder.weight", "head.weight", rows=config.vocab_size))
        copies = {}
    return _name_map(config, rows, prefix, copies)


def siglip_text_names(config: BertConfig, prefix: str) -> NameMap:
    """SigLIP's tower of text, without the layer behind it, which is that of what is made of both towers."""
    rows = text_tower_rows(config.norm, config.vocab_size)
    return _name_map(config, rows, prefix, {})


def dense_rows(theirs: str, ours: str, exists: bool = True, *, bias: bool = True) -> list[Row]:
    """A layer as wide as the model, where there is one."""
    rows = [Row(f"{theirs}.weight", f"{ours}.kernel", DENSE), Row(f"{theirs}.bias", f"{ours}.bias")]
    return rows[: 1 + bias] if exists else []


def head_transform_rows(config: BertConfig, theirs: str, dense: str, norm: str) -> list[Row]:
    """What stands in front of the head, where something does."""
    transform, ours = config.head_transform, "head_transform"
    if transform is None:
        return []
    rows = dense_rows(f"{theirs}.{dense}", f"{ours}.dense", bias=transform.bias)
    return [*rows, *norm_rows(transform.norm, f"{theirs}.{norm}", f"{ours}.norm")]


def _classifier_rows(theirs: str, ours: str) -> list[Row]:
    return [Row(f"{theirs}.weight", f"{ours}.kernel", _CLASSES), Row(f"{theirs}.bias", f"{ours}.bias")]


def _encoder_rows(config: BertConfig, prefix: str) -> list[Row]:
    """BERT's embeddings and layers, each behind a norm."""
    assert config.embedding_norm is not None
    embeddings, layer = f"{prefix}embeddings", f"{prefix}encoder.layer.{{layer}}"
    rows = [
        Row(f"{embeddings}.word_embeddings.weight", "embedding.weight", rows=config.vocab_size),
        Row(f"{embeddings}.position_embeddings.weight", "positions.weight"),
        Row(f"{embeddings}.token_type_embeddings.weight", "token_types.weight"),
        *norm_rows(config.embedding_norm, f"{embeddings}.LayerNorm", "embedding_norm"),
    ]
    for name in _QKV:
        theirs, ours = f"{layer}.attention.self.{name}", f"{_ATTENTION}.{name}"
        rows.append(Row(f"{theirs}.weight", f"{ours}.kernel", TO_HEADS))
        rows.append(Row(f"{theirs}.bias", f"{ours}.bias", HEADS_BIAS))
    return [
        *rows,
        Row(f"{layer}.attention.output.dense.weight", f"{_ATTENTION}.output.kernel", FROM_HEADS),
        Row(f"{layer}.attention.output.dense.bias", f"{_ATTENTION}.output.bias"),
        *norm_rows(config.norm, f"{layer}.attention.output.LayerNorm", "{attention}.residual_norm"),
        Row(f"{layer}.intermediate.dense.weight", "{mlp}.mlp.up.kernel", WIDE),
        Row(f"{layer}.intermediate.dense.bias", "{mlp}.mlp.up.bias"),
        Row(f"{layer}.output.dense.weight", "{mlp}.mlp.down.kernel", NARROW),
        Row(f"{layer}.output.dense.bias", "{mlp}.mlp.down.bias"),
        *norm_rows(config.norm, f"{layer}.output.LayerNorm", "{mlp}.residual_norm"),
    ]


def _of_later_layers(config: BertConfig, rows: Sequence[Row]) -> list[Row]:
    """Rows of a layer, of all layers but the first."""
    return [
        Row(row.theirs.format(layer=layer), row.ours, layer=layer)
        for layer in range(0 if config.first_norm else 1, config.num_layers)
        for row in rows
    ]


def _name_map(
    config: BertConfig,
    rows: Sequence[Row],
    prefix: str,
    copies: Mapping[str, str],
    other: Sequence[str] = (),
) -> NameMap:
    """Attention and the MLP behind it are one layer; older versions saved the numbers of positions."""
    numbering = in_pairs(len(config.pattern))
    ignored = (rf"{prefix}embeddings\.position_ids", *other)
    return stack_name_map(config, rows, numbering, copies=copies, ignored=ignored)
