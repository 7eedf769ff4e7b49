"""A hybrid as Megatron-Core has it: `HybridModel`'s names for parameters, and Megatron-LM's for settings."""

from mjx.errors import InputError
from mjx.models.interop.megatron.model import MegatronModel
from mjx.models.interop.megatron.rows import embedding_rows, head_rows, layer_rows
from mjx.models.interop.mixer_rows import norm_rows, ssd_rows
from mjx.models.interop.name_map import NameMap, Row
from mjx.models.interop.stack_map import stack_name_map
from mjx.models.mamba.config import MambaConfig
from mjx.models.mamba.config_keys import canonical
from mjx.models.mamba.hybrid_pattern import has_brackets
from mjx.models.mamba.megatron_settings import SETTINGS, describes


def megatron_name_map(config: MambaConfig) -> NameMap:
    """Megatron's tensors ↔ our parameters, for this model; norms have names of their own, as with the local
    layer spec, also where Transformer Engine puts them into the projection behind them.

    Raises:
        InputError: Megatron-Core has no such model.
    """
    resolved = canonical(config)
    ssd, attention = resolved.ssd, resolved.attention
    refused = {
        "m in model.hybrid_pattern (Mamba-1)": resolved.selective_scan is not None,
        "( in model.hybrid_pattern (sub-layers side by side)": has_brackets(config.hybrid_pattern),
        "S in model.hybrid_pattern (a shared block)": resolved.shared_block is not None,
    }
    if ssd is not None:
        refused |= {
            "model.ssd.bias = true": ssd.bias,
            "model.ssd.output_bias = true": bool(ssd.output_bias),
            f"model.ssd.norm = {ssd.norm}": ssd.norm != "behind gate",
            "model.ssd.conv_bias = false": not ssd.conv_bias,
            f"model.ssd.norm_groups = {ssd.norm_groups}": ssd.norm_groups != ssd.groups,
        }
    if attention is not None:
        refused["model.attention.qk_norm_over = all_heads"] = attention.qk_norm_over != "head"
    for name, holds in refused.items():
        if holds:
            raise InputError(f"{name} is not in Megatron-Core")
    return stack_name_map(config, _rows(resolved), range(len(config.symbols)))


def _rows(config: MambaConfig) -> list[Row]:
    """Of a canonical config."""
    layer, rows = "decoder.layers.{layer}", embedding_rows(config)
    if config.ssd is not None:
        rows += norm_rows(config.norm, f"{layer}.norm", "{ssd}.norm")
        rows += ssd_rows(config.ssd, f"{layer}.mixer")
    rows += layer_rows(layer, config.norm, config.attention, mlp=config.mlp, moe=config.moe)
    return rows + norm_rows(config.norm, "decoder.final_norm", "final_norm") + head_rows(config)


MEGATRON = MegatronModel(
    name_map=megatron_name_map, settings=SETTINGS, describes=describes, canonical=canonical
)
