"""How Hugging Face's models of state spaces name their tensors."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from mjx.models.common.norm import NormConfig
from mjx.models.interop.mixer_rows import (
    NARROW,
    TO_HEADS,
    attention_rows,
    mlp_rows,
    norm_rows,
    router_row,
    selective_scan_rows,
    ssd_rows,
)
from mjx.models.interop.name_map import NameMap, Row
from mjx.models.interop.stack_map import in_pairs, stack_name_map
from mjx.models.mamba.config import MambaConfig
from mjx.models.mamba.config_keys import canonical
from mjx.models.mamba.hybrid_pattern import MIXERS, SHARED
from mjx.models.mamba.shared_block import SharedBlockConfig

TO_HEADS_OF_BOTH = "(heads head_dim) (streams embed) -> streams embed heads head_dim"
_OUT = "embed latent -> latent embed"
_UNUSED = (r"model\.layers\.\d+\.shared_transformer\..*_adapter_list\.\d+\.[01]\.weight",)


def mixer_names(config: MambaConfig) -> NameMap:
    """Every sub-layer is a layer, and its mixer is called so, whatever it is (since Mamba's first)."""
    resolved, layer = canonical(config), "backbone.layers.{layer}"
    inner = f"{layer}.mixer"
    rows = norm_rows(config.norm, "backbone.norm_f", "final_norm")
    if resolved.ssd is not None:
        rows += [*norm_rows(config.norm, f"{layer}.norm", "{ssd}.norm"), *ssd_rows(resolved.ssd, inner)]
    if resolved.selective_scan is not None:
        rows += norm_rows(config.norm, f"{layer}.norm", "{selective_scan}.norm")
        rows += selective_scan_rows(resolved.selective_scan, inner)
    if resolved.attention is not None:
        rows += norm_rows(config.norm, f"{layer}.norm", "{attention}.norm")
        rows += attention_rows(resolved.attention, inner)
    if resolved.mlp is not None:
        rows += [*norm_rows(config.norm, f"{layer}.norm", "{mlp}.norm"), *mlp_rows(resolved.mlp, inner)]
    if resolved.moe is not None:
        rows += norm_rows(config.norm, f"{layer}.norm", "{moe}.norm")
        rows += _nemotron_experts(resolved, inner)
    return _named(config, rows, range(len(config.symbols)), table="backbone.embeddings.weight")


def _nemotron_experts(config: MambaConfig, theirs: str) -> list[Row]:
    moe, ours = config.moe, "{moe}.moe"
    assert moe is not None
    rows = [
        router_row(f"{theirs}.gate.weight"),
        *mlp_rows(moe.mlp, f"{theirs}.experts.{{expert}}", f"{ours}.experts"),
    ]
    if moe.router.expert_bias_rate is not None:
        rows.append(Row(f"{theirs}.gate.e_score_correction_bias", f"{ours}.router.expert_bias"))
    if moe.shared_mlp is not None:
        rows += mlp_rows(moe.shared_mlp, f"{theirs}.shared_experts", f"{ours}.shared")
    if moe.latent is not None:
        into, out = f"{ours}.into_latent", f"{ours}.out_of_latent"
        rows.append(Row(f"{theirs}.fc1_latent_proj.weight", f"{into}.kernel", "latent embed -> embed latent"))
        rows.append(Row(f"{theirs}.fc2_latent_proj.weight", f"{out}.kernel", "embed latent -> latent embed"))
        if moe.mlp.bias:
            rows.append(Row(f"{theirs}.fc1_latent_proj.bias", f"{into}.bias"))
            rows.append(Row(f"{theirs}.fc2_latent_proj.bias", f"{out}.bias"))
    return rows


def paired_names(config: MambaConfig) -> NameMap:
    """What mixes tokens and the MLP or experts behind it are one layer (Jamba, Bamba)."""
    resolved, layer = canonical(config), "model.layers.{layer}"
    rows = norm_rows(config.norm, "model.final_layernorm", "final_norm")
    for names, theirs in (
        (("ssd", "selective_scan", "attention"), "input_layernorm"),
        (("mlp", "moe"), "pre_ff_layernorm"),
    ):
        for name in names:
            if getattr(resolved, name) is not None:
                rows += norm_rows(config.norm, f"{layer}.{theirs}", f"{{{name}}}.norm")
    if resolved.ssd is not None:
        rows += ssd_rows(resolved.ssd, f"{layer}.mamba")
    if resolved.selective_scan is not None:
        rows += selective_scan_rows(resolved.selective_scan, f"{layer}.mamba")
    if resolved.attention is not None:
        rows += attention_rows(resolved.attention, f"{layer}.self_attn")
    if resolved.mlp is not None:
        rows += mlp_rows(resolved.mlp, f"{layer}.feed_forward")
    if resolved.moe is not None:
        rows.append(router_row(f"{layer}.feed_forward.router.weight"))
        rows += mlp_rows(resolved.moe.mlp, f"{layer}.feed_forward.experts.{{expert}}", "{moe}.moe.experts")
    numbering = in_pairs(len(config.symbols))
    return _named(config, rows, numbering, table="model.embed_tokens.weight")


def shared_mlp_names(config: MambaConfig) -> NameMap:
    """What mixes tokens and the experts behind it are one layer; the expert of all tokens, or the MLP where
    there are no others, is the shared MLP (Granite 4.0)."""
    resolved, layer = canonical(config), "model.layers.{layer}"
    rows = norm_rows(config.norm, "model.norm", "final_norm")
    if resolved.ssd is not None:
        rows += norm_rows(config.norm, f"{layer}.input_layernorm", "{ssd}.norm")
        rows += ssd_rows(resolved.ssd, f"{layer}.mamba")
    if resolved.attention is not None:
        rows += norm_rows(config.norm, f"{layer}.input_layernorm", "{attention}.norm")
        rows += attention_rows(resolved.attention, f"{layer}.self_attn")
    moe, shared, behind = resolved.moe, "{mlp}.mlp", "{mlp}.norm"
    if moe is not None:
        shared, behind, experts = "{moe}.moe.shared", "{moe}.norm", "{moe}.moe.experts"
        theirs = f"{layer}.block_sparse_moe"
        rows += [
            router_row(f"{theirs}.router.layer.weight"),
            Row(
                f"{theirs}.input_linear.weight",
                (f"{experts}.gate.kernel", f"{experts}.up.kernel"),
                "experts [mlp] embed -> experts embed mlp",
            ),
            Row(
                f"{theirs}.output_linear.weight",
                f"{experts}.down.kernel",
                "experts embed mlp -> experts mlp embed",
            ),
        ]
    rows += norm_rows(config.norm, f"{layer}.post_attention_layernorm", behind)
    if moe is None or moe.shared_features is not None:
        halves = (f"{shared}.gate.kernel", f"{shared}.up.kernel")
        rows.append(Row(f"{layer}.shared_mlp.input_linear.weight", halves, "[mlp] embed -> embed mlp"))
        rows.append(Row(f"{layer}.shared_mlp.output_linear.weight", f"{shared}.down.kernel", NARROW))
    numbering = in_pairs(len(config.symbols))
    return _named(config, rows, numbering, table="model.embed_tokens.weight")


def shared_block_names(config: MambaConfig) -> NameMap:
    """Mamba-2, and in some layers a shared block in front of it (Zamba2).

    A block's weights are in the layer of its first place, and may be in those of the others again. With them
    are the adapters of all places, which nothing uses where each place has its own block.
    """
    resolved, layer = canonical(config), "model.layers.{layer}"
    rows = norm_rows(config.norm, "model.final_layernorm", "final_norm")
    kinds, numbering, shared = [], [], list[int]()
    for symbol in config.symbols:
        layers = kinds.count("ssd") + kinds.count("ssd_behind")
        if symbol == SHARED:
            shared.append(layers)
        behind = symbol == "M" and bool(kinds) and kinds[-1] == "shared_block"
        kinds.append("ssd_behind" if behind else MIXERS[symbol])
        numbering.append(layers)
    if resolved.ssd is not None:
        for kind, theirs in (("ssd", layer), ("ssd_behind", f"{layer}.mamba_decoder")):
            rows += norm_rows(config.norm, f"{theirs}.input_layernorm", f"{{{kind}}}.norm")
            rows += ssd_rows(resolved.ssd, f"{theirs}.mamba", f"{{{kind}}}.ssd")
    copies = dict[str, str]()
    if resolved.shared_block is not None:
        block = resolved.shared_block
        rows.append(Row(f"{layer}.linear.weight", "{shared_block}.shared_block.out.kernel", _OUT))
        for number, first in enumerate(shared[: block.blocks]):
            of_block = _shared_block_rows(block, config.norm, number, first)
            of_block += [
                row
                for place, layer_ in enumerate(shared)
                if place % block.blocks == number
                for row in _adapter_rows(block, first, place, layer_)
            ]
            rows += of_block
            for again in shared[number :: block.blocks][1:]:
                one, other = (f"model.layers.{at}." for at in (first, again))
                copies |= {row.theirs.replace(one, other): row.theirs for row in of_block}
    return _named(
        config,
        rows,
        numbering,
        table="model.embed_tokens.weight",
        kinds=kinds,
        copies=copies,
        ignored=_UNUSED if not config.tie_embeddings else (),
    )


def _shared_block_rows(block: SharedBlockConfig, norm: NormConfig, number: int, layer: int) -> list[Row]:
    theirs, ours = f"model.layers.{layer}.shared_transformer", f"decoder.shared.block_{number}"
    rows = [Row(f"{theirs}.input_layernorm.weight", f"{ours}.norm.scale", "(streams embed) -> streams embed")]
    rows += norm_rows(norm, f"{theirs}.pre_ff_layernorm", f"{ours}.mlp_norm")
    rows += [
        dataclasses.replace(row, layout=TO_HEADS_OF_BOTH) if row.layout == TO_HEADS else row
        for row in attention_rows(block.attention, f"{theirs}.self_attn", f"{ours}.attention")
    ]
    mlp = f"{theirs}.feed_forward"
    for name, layout in (("weight", "[mlp] embed -> embed mlp"), ("bias", "[mlp] -> mlp")):
        part = "kernel" if name == "weight" else "bias"
        if name == "weight" or block.mlp.bias:
            halves = (f"{ours}.mlp.gate.{part}", f"{ours}.mlp.up.{part}")
            rows.append(Row(f"{mlp}.gate_up_proj.{name}", halves, layout))
    rows.append(Row(f"{mlp}.down_proj.weight", f"{ours}.mlp.down.kernel", NARROW))
    if block.mlp.bias:
        rows.append(Row(f"{mlp}.down_proj.bias", f"{ours}.mlp.down.bias"))
    return rows


def _adapter_rows(block: SharedBlockConfig, first: int, place: int, layer: int) -> list[Row]:
    """Of one place: in the module of the block, under the place's number."""
    theirs, ours = f"model.layers.{first}.shared_transformer", "{shared_block}.shared_block"
    mlp = f"{theirs}.feed_forward.gate_up_proj_adapter_list.{place}"
    outs = tuple(f"{ours}.mlp_adapter.out.{name}.kernel" for name in ("gate", "up"))
    rows = [
        Row(
            f"{mlp}.0.weight", f"{ours}.mlp_adapter.into.kernel", "latent embed -> embed latent", layer=layer
        ),
        Row(f"{mlp}.1.weight", outs, "[mlp] latent -> latent mlp", layer=layer),
    ]
    for name in ("query", "key", "value") if block.attention_adapters else ():
        one, two = f"{ours}.attention_adapters.{name}", f"{theirs}.self_attn.linear_{name[0]}_adapter_list"
        into = "latent (streams embed) -> streams embed latent"
        out = "(heads head_dim) latent -> latent heads head_dim"
        rows.append(Row(f"{two}.{place}.0.weight", f"{one}.into.kernel", into, layer=layer))
        rows.append(Row(f"{two}.{place}.1.weight", f"{one}.out.{name}.kernel", out, layer=layer))
    return rows


def side_by_side_names(config: MambaConfig) -> NameMap:
    """Mamba-2 and attention behind one norm, and the MLP behind them, are one layer (Falcon-H1)."""
    resolved, layer = canonical(config), "model.layers.{layer}"
    rows = norm_rows(config.norm, "model.final_layernorm", "final_norm")
    if resolved.ssd is not None:
        rows += norm_rows(config.norm, f"{layer}.input_layernorm", "{ssd}.norm")
        rows += ssd_rows(resolved.ssd, f"{layer}.mamba")
    if resolved.attention is not None:
        rows += attention_rows(resolved.attention, f"{layer}.self_attn")
    if resolved.mlp is not None:
        rows += norm_rows(config.norm, f"{layer}.pre_ff_layernorm", "{mlp}.norm")
        rows += mlp_rows(resolved.mlp, f"{layer}.feed_forward")
    numbering = [at // 3 for at in range(len(config.symbols))]
    return _named(config, rows, numbering, table="model.embed_tokens.weight")


def _named(
    config: MambaConfig,
    rows: list[Row],
    numbering: Sequence[int],
    *,
    table: str,
    kinds: Sequence[str] | None = None,
    copies: Mapping[str, str] = MappingProxyType({}),
    ignored: Sequence[str] = (),
) -> NameMap:
    """With the token table and the head, which may be there twice where they are tied."""
    rows = [Row(table, "embedding.weight", rows=config.vocab_size), *rows]
    if config.tie_embeddings:
        copies = {**copies, "lm_head.weight": table}
    else:
        rows.append(Row("lm_head.weight", "head.weight", rows=config.vocab_size))
    return stack_name_map(config, rows, numbering, kinds=kinds, copies=copies, ignored=ignored)
