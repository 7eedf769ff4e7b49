"""How Hugging Face's decoder-only models name their tensors, and how these lie in ours."""

from mjx.models.gpt.config import GPTConfig
from mjx.models.gpt.name_map import name_map
from mjx.models.interop.mixer_rows import (
    FROM_HEADS,
    NARROW,
    NUMBERED_POSITIONS,
    WIDE,
    attention_rows,
    mlp_rows,
    moe_rows,
    norm_rows,
    router_row,
    text_tower_rows,
)
from mjx.models.interop.name_map import NameMap, Row

_QUERY, _KEY, _VALUE, _OUTPUT = (
    f"{{attention}}.attention.{name}.kernel" for name in ("query", "key", "value", "output")
)
_GATE, _UP, _DOWN = (f"{{mlp}}.mlp.{name}.kernel" for name in ("gate", "up", "down"))
_EXPERTS = "{moe}.moe.experts"
_LAYER = "model.layers.{layer}"


def llama_names(config: GPTConfig) -> NameMap:
    """The names that most decoders since Llama have, and those of Qwen's mixtures of experts."""
    rows = mlp_rows(config.mlp, f"{_LAYER}.mlp") if config.mlp is not None else []
    rows += moe_rows(config.moe, f"{_LAYER}.mlp") if config.moe is not None else []
    return _with_attention(config, rows)


def mixtral_names(config: GPTConfig) -> NameMap:
    """Llama's names, with w1 (gate), w2 (down) and w3 (up) of each expert."""
    sparse = f"{_LAYER}.block_sparse_moe"
    halves = {"w1": ("gate", WIDE), "w2": ("down", NARROW), "w3": ("up", WIDE)}
    experts = [
        Row(f"{sparse}.experts.{{expert}}.{theirs}.weight", f"{_EXPERTS}.{ours}.kernel", layout)
        for theirs, (ours, layout) in halves.items()
    ]
    return _with_attention(config, [router_row(f"{sparse}.gate.weight"), *experts])


def gpt_oss_names(config: GPTConfig) -> NameMap:
    """Llama's names, with all experts in one tensor, in which the columns of gate and up take turns."""
    router, experts = f"{_LAYER}.mlp.router", f"{_LAYER}.mlp.experts"
    wide = "experts embed (mlp [1]) -> experts embed mlp"
    rows = [
        router_row(f"{router}.weight"),
        Row(f"{router}.bias", "{moe}.moe.router.bias"),
        Row(f"{experts}.gate_up_proj", (f"{_EXPERTS}.gate.kernel", f"{_EXPERTS}.up.kernel"), wide),
        Row(
            f"{experts}.gate_up_proj_bias",
            (f"{_EXPERTS}.gate.bias", f"{_EXPERTS}.up.bias"),
            "experts (mlp [1]) -> experts mlp",
        ),
        Row(f"{experts}.down_proj", f"{_EXPERTS}.down.kernel"),
        Row(f"{experts}.down_proj_bias", f"{_EXPERTS}.down.bias"),
    ]
    return _with_attention(config, rows)


def _with_attention(config: GPTConfig, rows: list[Row]) -> NameMap:
    """Llama's names around what comes behind attention."""
    attention = attention_rows(config.attention, f"{_LAYER}.self_attn")
    rows = [*_llama_norms(config), *attention, *rows]
    return _named(config, rows, table="model.embed_tokens.weight", head="lm_head.weight")


def phi3_names(config: GPTConfig) -> NameMap:
    """Llama's names, with queries, keys and values in one tensor, and gate and up in another."""
    rows = [
        *_llama_norms(config),
        Row(
            f"{_LAYER}.self_attn.qkv_proj.weight",
            (_QUERY, _KEY, _VALUE),
            "([heads] head_dim) embed -> embed heads head_dim",
        ),
        Row(f"{_LAYER}.self_attn.o_proj.weight", _OUTPUT, FROM_HEADS),
        Row(f"{_LAYER}.mlp.gate_up_proj.weight", (_GATE, _UP), "[mlp] embed -> embed mlp"),
        Row(f"{_LAYER}.mlp.down_proj.weight", _DOWN, NARROW),
    ]
    return _named(config, rows, table="model.embed_tokens.weight", head="lm_head.weight")


def _llama_norms(config: GPTConfig) -> list[Row]:
    """`post_attention_layernorm` is before the MLP, or the experts, where norms are at the inputs, else
    behind attention."""
    before = {"input_layernorm": "{attention}.norm", "post_attention_layernorm": "{mlp}.norm"}
    behind = {
        "post_attention_layernorm": "{attention}.output_norm",
        "post_feedforward_layernorm": "{mlp}.output_norm",
    }
    both = {"input_layernorm": "{attention}.norm", "pre_feedforward_layernorm": "{mlp}.norm", **behind}
    norms = {"input": before, "output": behind, "both": both}[config.norm_placement]
    rows = norm_rows(config.norm, "model.norm", "final_norm")
    for theirs, ours in norms.items():
        of_experts = [ours.replace("{mlp}", "{moe}")] if "{mlp}" in ours else []
        for place in (ours, *of_experts):  # a layer has one or the other
            rows += norm_rows(config.norm, f"{_LAYER}.{theirs}", place)
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


def clip_text_names(config: GPTConfig) -> NameMap:
    """CLIP's tower of text; nothing is told from what it makes, so that there is no head."""
    rows = text_tower_rows(config.norm, config.vocab_size)
    return name_map(config, rows, ignored=(NUMBERED_POSITIONS,))


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
