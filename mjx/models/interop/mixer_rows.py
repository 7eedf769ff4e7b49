"""The rows of mixers that many of Hugging Face's models have by the same names, since Llama."""

from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.moe import MoEConfig
from mjx.models.common.norm import NormConfig
from mjx.models.interop.name_map import Row

TO_HEADS = "(heads head_dim) embed -> embed heads head_dim"
FROM_HEADS = "embed (heads head_dim) -> heads head_dim embed"
HEADS_BIAS = "(heads head_dim) -> heads head_dim"
WIDE = "mlp embed -> embed mlp"
NARROW = "embed mlp -> mlp embed"


def norm_rows(norm: NormConfig, theirs: str, ours: str) -> list[Row]:
    """The gain of a norm, and its bias where it has one."""
    rows = [Row(f"{theirs}.weight", f"{ours}.scale")]
    if norm.kind == "layernorm":
        rows.append(Row(f"{theirs}.bias", f"{ours}.bias"))
    return rows


def attention_rows(attention: AttentionConfig, theirs: str, ours: str = "{attention}.attention") -> list[Row]:
    """`q_proj`, `k_proj`, `v_proj` and `o_proj`, with norms, biases and sinks where there are any."""
    projections = ("query", "key", "value")
    rows = [Row(f"{theirs}.{name[0]}_proj.weight", f"{ours}.{name}.kernel", TO_HEADS) for name in projections]
    rows.append(Row(f"{theirs}.o_proj.weight", f"{ours}.output.kernel", FROM_HEADS))
    if attention.qkv_bias:
        rows += [
            Row(f"{theirs}.{name[0]}_proj.bias", f"{ours}.{name}.bias", HEADS_BIAS) for name in projections
        ]
    if attention.output_bias:
        rows.append(Row(f"{theirs}.o_proj.bias", f"{ours}.output.bias"))
    if attention.softmax == "learnable":
        rows.append(Row(f"{theirs}.sinks", f"{ours}.sinks"))
    if attention.qk_norm is not None:
        layout = HEADS_BIAS if attention.qk_norm_over == "all_heads" else None
        rows += [
            Row(f"{theirs}.{name[0]}_norm.weight", f"{ours}.{name}_norm.scale", layout)
            for name in ("query", "key")
        ]
    return rows


def mlp_rows(mlp: MLPConfig, theirs: str, ours: str = "{mlp}.mlp") -> list[Row]:
    """`gate_proj`, `up_proj` and `down_proj`, with biases where there are any."""
    rows = [
        Row(f"{theirs}.up_proj.weight", f"{ours}.up.kernel", WIDE),
        Row(f"{theirs}.down_proj.weight", f"{ours}.down.kernel", NARROW),
    ]
    if mlp.gated:
        rows.append(Row(f"{theirs}.gate_proj.weight", f"{ours}.gate.kernel", WIDE))
    if mlp.bias:
        halves = ("gate", "up", "down") if mlp.gated else ("up", "down")
        rows += [Row(f"{theirs}.{half}_proj.bias", f"{ours}.{half}.bias") for half in halves]
    return rows


def moe_rows(moe: MoEConfig, theirs: str, ours: str = "{moe}.moe") -> list[Row]:
    """`gate`, the router; an MLP of each expert; `shared_expert` and its gate where there are any."""
    rows = [
        router_row(f"{theirs}.gate.weight", ours),
        *mlp_rows(moe.mlp, f"{theirs}.experts.{{expert}}", f"{ours}.experts"),
    ]
    if moe.shared_mlp is not None:
        rows += mlp_rows(moe.shared_mlp, f"{theirs}.shared_expert", f"{ours}.shared")
    if moe.shared_gate:
        gate = f"{ours}.shared_gate.kernel"
        rows.append(Row(f"{theirs}.shared_expert_gate.weight", gate, "1 embed -> embed"))
    return rows


def router_row(theirs: str, ours: str = "{moe}.moe") -> Row:
    """The router's map."""
    return Row(theirs, f"{ours}.router.kernel", "experts embed -> embed experts")
