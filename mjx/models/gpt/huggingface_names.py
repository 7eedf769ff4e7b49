"""How Hugging Face's decoder-only models name their tensors, and how these lie in ours."""

from mjx.models.gpt.config import GPTConfig
from mjx.models.gpt.name_map import name_map
from mjx.models.interop.mixer_rows import (
    FROM_HEADS,
    NARROW,
    WIDE,
    attention_rows,
    mlp_rows,
    norm_rows,
)
from mjx.models.interop.name_map import NameMap, Row

_QUERY, _KEY, _VALUE, _OUTPUT = (
    f"{{attention}}.attention.{name}.kernel" for name in ("query", "key", "value", "output")
)
_GATE, _UP, _DOWN = (f"{{mlp}}.mlp.{name}.kernel" for name in ("gate", "up", "down"))


def llama_names(config: GPTConfig) -> NameMap:
    """The names that most decoders since Llama have."""
    layer = "model.layers.{layer}"
    rows = [
        *_llama_norms(config),
        *attention_rows(config.attention, f"{layer}.self_attn"),
        *(mlp_rows(config.mlp, f"{layer}.mlp") if config.mlp is not None else ()),
    ]
    return _named(config, rows, table="model.embed_tokens.weight", head="lm_head.weight")


def phi3_names(config: GPTConfig) -> NameMap:
    """Llama's names, with queries, keys and values in one tensor, and gate and up in another."""
    layer = "model.layers.{layer}"
    rows = [
        *_llama_norms(config),
        Row(
            f"{layer}.self_attn.qkv_proj.weight",
            (_QUERY, _KEY, _VALUE),
            "([heads] head_dim) embed -> embed heads head_dim",
        ),
        Row(f"{layer}.self_attn.o_proj.weight", _OUTPUT, FROM_HEADS),
        Row(f"{layer}.mlp.gate_up_proj.weight", (_GATE, _UP), "[mlp] embed -> embed mlp"),
        Row(f"{layer}.mlp.down_proj.weight", _DOWN, NARROW),
    ]
    return _named(config, rows, table="model.embed_tokens.weight", head="lm_head.weight")


def _llama_norms(config: GPTConfig) -> list[Row]:
    """`post_attention_layernorm` is before the MLP where norms are at the inputs, else behind attention."""
    before = {"input_layernorm": "{attention}.norm", "post_attention_layernorm": "{mlp}.norm"}
    behind = {
        "post_attention_layernorm": "{attention}.output_norm",
        "post_feedforward_layernorm": "{mlp}.output_norm",
    }
    both = {"input_layernorm": "{attention}.norm", "pre_feedforward_layernorm": "{mlp}.norm", **behind}
    norms = {"input": before, "output": behind, "both": both}[config.norm_placement]
    rows = norm_rows(config.norm, "model.norm", "final_norm")
    for theirs, ours in norms.items():
        rows += norm_rows(config.norm, f"model.layers.{{layer}}.{theirs}", ours)
    return rows


def gpt2_names(config: GPTConfig) -> NameMap:
    """GPT-2's maps are stored inputs first (its `Conv1D`)."""
    layer = "transformer.h.{layer}"
    rows = [
        Row("transformer.wpe.weight", "positions.weight"),
        *norm_rows(config.norm, f"{layer}.ln_1", "{attention}.norm"),
        Row(
            f"{layer}.attn.c_attn.weight",
            (_QUERY, _KEY, _VALUE),
            "embed ([heads] head_dim) -> embed heads head_dim",
        ),
        Row(
            f"{layer}.attn.c_attn.bias",
            tuple(f"{{attention}}.attention.{name}.bias" for name in ("query", "key", "value")),
            "([heads] head_dim) -> heads head_dim",
        ),
        Row(f"{layer}.attn.c_proj.weight", _OUTPUT, "(heads head_dim) embed -> heads head_dim embed"),
        Row(f"{layer}.attn.c_proj.bias", "{attention}.attention.output.bias"),
        *norm_rows(config.norm, f"{layer}.ln_2", "{mlp}.norm"),
        Row(f"{layer}.mlp.c_fc.weight", _UP),
        Row(f"{layer}.mlp.c_fc.bias", "{mlp}.mlp.up.bias"),
        Row(f"{layer}.mlp.c_proj.weight", _DOWN),
        Row(f"{layer}.mlp.c_proj.bias", "{mlp}.mlp.down.bias"),
        *norm_rows(config.norm, "transformer.ln_f", "final_norm"),
    ]
    return _named(config, rows, table="transformer.wte.weight", head="lm_head.weight")


def gpt_neox_names(config: GPTConfig) -> NameMap:
    """Query, key and value of a head lie together."""
    layer = "gpt_neox.layers.{layer}"
    heads = {"group": config.attention.num_heads}
    rows = [
        *norm_rows(config.norm, f"{layer}.input_layernorm", "{attention}.norm"),
        Row(
            f"{layer}.attention.query_key_value.weight",
            (_QUERY, _KEY, _VALUE),
            "(group [heads] head_dim) embed -> embed (group heads) head_dim",
            heads,
        ),
        Row(f"{layer}.attention.dense.weight", _OUTPUT, FROM_HEADS),
        *norm_rows(config.norm, f"{layer}.post_attention_layernorm", "{mlp}.norm"),
        Row(f"{layer}.mlp.dense_h_to_4h.weight", _UP, WIDE),
        Row(f"{layer}.mlp.dense_h_to_4h.bias", "{mlp}.mlp.up.bias"),
        Row(f"{layer}.mlp.dense_4h_to_h.weight", _DOWN, NARROW),
        Row(f"{layer}.mlp.dense_4h_to_h.bias", "{mlp}.mlp.down.bias"),
        *norm_rows(config.norm, "gpt_neox.final_layer_norm", "final_norm"),
    ]
    if config.attention.qkv_bias:
        rows += [
            Row(
                f"{layer}.attention.query_key_value.bias",
                tuple(f"{{attention}}.attention.{name}.bias" for name in ("query", "key", "value")),
                "(group [heads] head_dim) -> (group heads) head_dim",
                heads,
            ),
            Row(f"{layer}.attention.dense.bias", "{attention}.attention.output.bias"),
        ]
    return _named(config, rows, table="gpt_neox.embed_in.weight", head="embed_out.weight")


def _named(config: GPTConfig, rows: list[Row], *, table: str, head: str) -> NameMap:
    """With the token table and the head, which may be there twice where they are tied."""
    rows = [Row(table, "embedding.weight", rows=config.vocab_size), *rows]
    if not config.tie_embeddings:
        rows.append(Row(head, "head.weight", rows=config.vocab_size))
    # Tables of masks and frequencies that older versions saved with the parameters.
    ignored = (r".*\.(attn|attention)\.(masked_)?bias", r".*\.rotary_emb\.inv_freq")
    return name_map(config, rows, copies={head: table} if config.tie_embeddings else {}, ignored=ignored)
