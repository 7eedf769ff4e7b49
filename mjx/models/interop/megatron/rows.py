"""The rows that Megatron-Core's models share: embeddings, layers with their norms, the head."""

from mjx.models.common.attention import AttentionConfig
from mjx.models.common.attention.cross_attention import CrossAttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.moe import MoEConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.token_model.config import TokenModelConfig
from mjx.models.interop.megatron.attention import attention_rows
from mjx.models.interop.megatron.moe import mlp_rows, moe_rows
from mjx.models.interop.mixer_rows import norm_rows
from mjx.models.interop.name_map import Row


def embedding_rows(config: TokenModelConfig) -> list[Row]:
    """Tables of tokens, learned positions and token types."""
    rows = [Row("embedding.word_embeddings.weight", "embedding.weight", rows=config.vocab_size, padded=True)]
    if config.max_positions is not None:
        rows.append(Row("embedding.position_embeddings.weight", "positions.weight"))
    if config.token_types:
        rows.append(Row("embedding.tokentype_embeddings.weight", "token_types.weight"))
    return rows


def head_rows(config: TokenModelConfig, theirs: str = "output_layer") -> list[Row]:
    """The table where it is not the tokens' own, and the bias."""
    rows = []
    if not config.tie_embeddings:
        rows.append(Row(f"{theirs}.weight", "head.weight", rows=config.vocab_size, padded=True))
    if config.head_bias:
        rows.append(Row(f"{theirs}.bias", "head_bias", rows=config.vocab_size, padded=True))
    return rows


def layer_rows(
    theirs: str,
    norm: NormConfig,
    attention: AttentionConfig | None = None,
    cross_attention: CrossAttentionConfig | None = None,
    mlp: MLPConfig | None = None,
    moe: MoEConfig | None = None,
    *,
    stack: str = "",
) -> list[Row]:
    """Of the mixers that a layer may have, each with its norm; configs are resolved.

    `theirs` is the layer's name, `decoder.layers.{layer}`; a mixer is None where no layer has one. `stack`
    stands in front of the kinds of sub-layers where a model has two: `encoder_` for `{encoder_attention}`.
    """
    rows = []
    if attention is not None:
        place = f"{{{stack}attention}}"
        rows += norm_rows(norm, f"{theirs}.input_layernorm", f"{place}.norm")
        rows += attention_rows(attention, f"{theirs}.self_attention", f"{place}.attention")
    if cross_attention is not None:
        place = f"{{{stack}cross_attention}}"
        rows += norm_rows(norm, f"{theirs}.pre_cross_attn_layernorm", f"{place}.norm")
        rows += cross_attention_rows(cross_attention, f"{theirs}.cross_attention", f"{place}.cross_attention")
    if mlp is not None:
        place = f"{{{stack}mlp}}"
        rows += norm_rows(norm, f"{theirs}.pre_mlp_layernorm", f"{place}.norm")
        rows += mlp_rows(mlp, f"{theirs}.mlp", f"{place}.mlp")
    if moe is not None:
        rows += norm_rows(norm, f"{theirs}.pre_mlp_layernorm", f"{{{stack}moe}}.norm")
        rows += moe_rows(moe, f"{theirs}.mlp")
    return rows


def cross_attention_rows(attention: CrossAttentionConfig, theirs: str, ours: str) -> list[Row]:
    """`linear_q`, `linear_kv` (a head's key and its value lie together) and `linear_proj`."""
    joined = tuple(f"{ours}.{name}" for name in ("key", "value"))
    groups = {"group": attention.kv_heads}
    rows = [
        Row(
            f"{theirs}.linear_q.weight",
            f"{ours}.query.kernel",
            "(heads head_dim) embed -> embed heads head_dim",
        ),
        Row(
            f"{theirs}.linear_kv.weight",
            tuple(f"{name}.kernel" for name in joined),
            "(group [heads] head_dim) embed -> embed (group heads) head_dim",
            groups,
        ),
        Row(
            f"{theirs}.linear_proj.weight",
            f"{ours}.output.kernel",
            "embed (heads head_dim) -> heads head_dim embed",
        ),
    ]
    if attention.bias:
        rows += [
            Row(f"{theirs}.linear_q.bias", f"{ours}.query.bias", "(heads head_dim) -> heads head_dim"),
            Row(
                f"{theirs}.linear_kv.bias",
                tuple(f"{name}.bias" for name in joined),
                "(group [heads] head_dim) -> (group heads) head_dim",
                groups,
            ),
        ]
    if attention.output_bias:
        rows.append(Row(f"{theirs}.linear_proj.bias", f"{ours}.output.bias"))
    return rows
