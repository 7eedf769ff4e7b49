"""How Hugging Face's encoder-decoders name their tensors, and how these lie in ours."""

from collections.abc import Sequence

from mjx.models.interop.mixer_rows import NARROW, WIDE, norm_rows, projection_rows
from mjx.models.interop.name_map import NameMap, Row
from mjx.models.interop.stack_map import in_pairs, stack_name_map
from mjx.models.t5.config import T5Config


def t5_names(config: T5Config) -> NameMap:
    """A block has numbered layers: attention, cross-attention in the decoder, MLP; each behind a norm."""
    norm, rows = config.norm, [_table(config, "shared.weight")]
    for stack, prefix in (("encoder", "encoder_"), ("decoder", "")):
        block = f"{stack}.block.{{layer}}.layer"
        mlp = 1 if stack == "encoder" else 2
        names = ("q", "k", "v", "o")
        rows += norm_rows(norm, f"{block}.0.layer_norm", f"{{{prefix}attention}}.norm")
        rows += projection_rows(f"{block}.0.SelfAttention", f"{{{prefix}attention}}.attention", names)
        rows.append(
            Row(
                f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                f"{stack}.shared.relative_bias.weight",
            )
        )
        if stack == "decoder":
            rows += norm_rows(norm, f"{block}.1.layer_norm", "{cross_attention}.norm")
            cross = "{cross_attention}.cross_attention"
            rows += projection_rows(f"{block}.1.EncDecAttention", cross, names)
        dense = f"{block}.{mlp}.DenseReluDense"
        wide = {"gate": "wi_0", "up": "wi_1"} if config.mlp.gated else {"up": "wi"}
        rows += norm_rows(norm, f"{block}.{mlp}.layer_norm", f"{{{prefix}mlp}}.norm")
        rows += _mlp_rows(dense, f"{{{prefix}mlp}}.mlp", wide | {"down": "wo"}, bias=False)
    rows += norm_rows(norm, "encoder.final_layer_norm", "encoder_norm")
    rows += norm_rows(norm, "decoder.final_layer_norm", "final_norm")
    copies = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
    if config.tie_embeddings:
        copies.append("lm_head.weight")
    else:
        rows.append(Row("lm_head.weight", "head.weight", rows=config.vocab_size))
    return _named(
        config,
        rows,
        copies=dict.fromkeys(copies, "shared.weight"),
        # The first conversions have it, and no version of transformers reads it.
        ignored=(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",),
    )


def bart_names(config: T5Config) -> NameMap:
    """A norm behind each sub-layer, and one behind the embeddings of each side."""
    norm, rows = config.norm, [_table(config, "model.shared.weight")]
    rows.append(
        Row("final_logits_bias", "head_bias", "1 vocab -> vocab", rows=config.vocab_size, rows_axis=1)
    )
    for stack, prefix in (("encoder", "encoder_"), ("decoder", "")):
        side = f"model.{stack}"
        layer = f"{side}.layers.{{layer}}"
        rows.append(Row(f"{side}.embed_positions.weight", f"{prefix}positions.weight"))
        assert config.embedding_norm is not None
        rows += norm_rows(config.embedding_norm, f"{side}.layernorm_embedding", f"{prefix}embedding_norm")
        sublayers = {"attention": ("self_attn", "self_attn_layer_norm")}
        if stack == "decoder":
            sublayers["cross_attention"] = ("encoder_attn", "encoder_attn_layer_norm")
        for kind, (theirs, theirs_norm) in sublayers.items():
            place, names = f"{{{prefix}{kind}}}", ("q_proj", "k_proj", "v_proj", "out_proj")
            rows += projection_rows(
                f"{layer}.{theirs}", f"{place}.{kind}", names, bias=True, output_bias=True
            )
            rows += norm_rows(norm, f"{layer}.{theirs_norm}", f"{place}.residual_norm")
        place = f"{{{prefix}mlp}}"
        rows += _mlp_rows(layer, f"{place}.mlp", {"up": "fc1", "down": "fc2"}, bias=True)
        rows += norm_rows(norm, f"{layer}.final_layer_norm", f"{place}.residual_norm")
    copies = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
    return _named(
        config,
        rows,
        copies=dict.fromkeys(copies, "model.shared.weight"),
        ignored=(r"model\.(encoder|decoder)\.version",),
    )


def _table(config: T5Config, theirs: str) -> Row:
    return Row(theirs, "embedding.weight", rows=config.vocab_size)


def _mlp_rows(theirs: str, ours: str, names: dict[str, str], *, bias: bool) -> list[Row]:
    """`names`: ours of the maps → theirs."""
    rows = [
        Row(f"{theirs}.{name}.weight", f"{ours}.{part}.kernel", NARROW if part == "down" else WIDE)
        for part, name in names.items()
    ]
    if bias:
        rows += [Row(f"{theirs}.{name}.bias", f"{ours}.{part}.bias") for part, name in names.items()]
    return rows


def _named(
    config: T5Config, rows: Sequence[Row], *, copies: dict[str, str], ignored: Sequence[str]
) -> NameMap:
    numberings = {
        "encoder": in_pairs(len(config.encoder_pattern)),
        "decoder": [at // 3 for at in range(len(config.pattern))],
    }
    return stack_name_map(config, rows, numberings, copies=copies, ignored=ignored)
