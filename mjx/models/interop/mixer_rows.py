"""The rows of mixers that many of Hugging Face's models have by the same names, since Llama."""

from collections.abc import Sequence

from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.moe import MoEConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.state_space import SelectiveScanConfig, SSDConfig
from mjx.models.interop.name_map import Row

TO_HEADS = "(heads head_dim) embed -> embed heads head_dim"
FROM_HEADS = "embed (heads head_dim) -> heads head_dim embed"
HEADS_BIAS = "(heads head_dim) -> heads head_dim"
WIDE = "mlp embed -> embed mlp"
NARROW = "embed mlp -> mlp embed"


def norm_rows(norm: NormConfig, theirs: str, ours: str) -> list[Row]:
    """The gain of a norm, and its bias where it has one."""
    rows = [Row(f"{theirs}.weight", f"{ours}.scale")]
    if norm.biased:
        rows.append(Row(f"{theirs}.bias", f"{ours}.bias"))
    return rows


def projection_rows(
    theirs: str,
    ours: str,
    names: Sequence[str] = ("q_proj", "k_proj", "v_proj", "o_proj"),
    *,
    bias: bool = False,
    output_bias: bool = False,
) -> list[Row]:
    """The maps into heads and out of them, which attention and cross-attention have; `names` are theirs of
    queries, keys, values and output."""
    *into, out = names
    parts = dict(zip(("query", "key", "value"), into, strict=True))
    rows = [Row(f"{theirs}.{name}.weight", f"{ours}.{part}.kernel", TO_HEADS) for part, name in parts.items()]
    rows.append(Row(f"{theirs}.{out}.weight", f"{ours}.output.kernel", FROM_HEADS))
    if bias:
        rows += [
            Row(f"{theirs}.{name}.bias", f"{ours}.{part}.bias", HEADS_BIAS) for part, name in parts.items()
        ]
    if output_bias:
        rows.append(Row(f"{theirs}.{out}.bias", f"{ours}.output.bias"))
    return rows


def attention_rows(attention: AttentionConfig, theirs: str, ours: str = "{attention}.attention") -> list[Row]:
    """`q_proj`, `k_proj`, `v_proj` and `o_proj`, with norms, biases and sinks where there are any."""
    rows = projection_rows(theirs, ours, bias=attention.qkv_bias, output_bias=attention.output_bias)
    if attention.softmax == "learnable":
        rows.append(Row(f"{theirs}.sinks", f"{ours}.sinks"))
    if attention.qk_norm is not None:
        layout = HEADS_BIAS if attention.qk_norm_over == "all_heads" else None
        rows += [
            Row(f"{theirs}.{name[0]}_norm.weight", f"{ours}.{name}_norm.scale", layout)
            for name in ("query", "key")
        ]
    return rows


def ssd_rows(ssd: SSDConfig, theirs: str, ours: str = "{ssd}.ssd") -> list[Row]:
    """`in_proj` (z, x, B, C, dt in one), `conv1d` (x, B, C), `A_log`, `D`, `dt_bias`, `norm`, `out_proj`.

    Of a resolved config."""
    features, group = "(heads head_dim)", "(groups state)"
    parts, wide = ("gate", "value", "B", "C", "dt"), f"{features} | {features} | {group} | {group} | heads"
    convolved = tuple(f"{ours}.{name}_conv" for name in ("value", "B", "C"))
    rows = [
        Row(
            f"{theirs}.in_proj.weight",
            tuple(f"{ours}.{name}.kernel" for name in parts),
            f"[{wide}] embed -> embed heads head_dim | embed heads head_dim | embed groups state "
            "| embed groups state | embed heads",
        ),
        Row(
            f"{theirs}.conv1d.weight",
            tuple(f"{name}.kernel" for name in convolved),
            f"[{features} | {group} | {group}] 1 conv -> heads head_dim conv | groups state conv "
            "| groups state conv",
        ),
        Row(f"{theirs}.A_log", f"{ours}.A_log"),
        Row(f"{theirs}.D", f"{ours}.D", HEADS_BIAS if ssd.skip == "feature" else None),
        Row(f"{theirs}.dt_bias", f"{ours}.dt_bias"),
        Row(f"{theirs}.out_proj.weight", f"{ours}.output.kernel", FROM_HEADS),
    ]
    if ssd.conv_bias:
        joined = f"[{features} | {group} | {group}] -> heads head_dim | groups state | groups state"
        rows.append(Row(f"{theirs}.conv1d.bias", tuple(f"{name}.bias" for name in convolved), joined))
    if ssd.bias:
        joined = f"[{wide}] -> heads head_dim | heads head_dim | groups state | groups state | heads"
        rows.append(Row(f"{theirs}.in_proj.bias", tuple(f"{ours}.{name}.bias" for name in parts), joined))
    if ssd.output_bias:
        rows.append(Row(f"{theirs}.out_proj.bias", f"{ours}.output.bias"))
    if ssd.norm != "none":
        rows.append(Row(f"{theirs}.norm.weight", f"{ours}.norm_scale", HEADS_BIAS))
    return rows


def selective_scan_rows(
    scan: SelectiveScanConfig, theirs: str, ours: str = "{selective_scan}.selective_scan"
) -> list[Row]:
    """`in_proj` (x and z in one), `conv1d`, `x_proj` (steps, B and C), `dt_proj`, `A_log`, `D`, `out_proj`;
    and norms where they have gains."""
    rows = [
        Row(
            f"{theirs}.in_proj.weight",
            (f"{ours}.value.kernel", f"{ours}.gate.kernel"),
            "[inner] embed -> embed inner",
        ),
        Row(f"{theirs}.conv1d.weight", f"{ours}.value_conv.kernel", "inner 1 conv -> inner conv"),
        Row(
            f"{theirs}.x_proj.weight",
            tuple(f"{ours}.{name}.kernel" for name in ("steps", "B", "C")),
            "[features] inner -> inner features",
        ),
        Row(f"{theirs}.dt_proj.weight", f"{ours}.dt", "inner latent -> latent inner"),
        Row(f"{theirs}.dt_proj.bias", f"{ours}.dt_bias"),
        Row(f"{theirs}.A_log", f"{ours}.A_log"),
        Row(f"{theirs}.D", f"{ours}.D"),
        Row(f"{theirs}.out_proj.weight", f"{ours}.output.kernel", "embed inner -> inner embed"),
    ]
    if scan.conv_bias:
        rows.append(Row(f"{theirs}.conv1d.bias", f"{ours}.value_conv.bias"))
    if scan.bias:
        halves = (f"{ours}.value.bias", f"{ours}.gate.bias")
        rows.append(Row(f"{theirs}.in_proj.bias", halves, "[inner] -> inner"))
        rows.append(Row(f"{theirs}.out_proj.bias", f"{ours}.output.bias"))
    if scan.inner_norm is not None and scan.inner_norm_gain:
        for name, part in (("dt", "steps"), ("b", "B"), ("c", "C")):
            rows.append(Row(f"{theirs}.{name}_layernorm.weight", f"{ours}.{part}_norm.scale"))
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


def fc_rows(theirs: str, ours: str = "{mlp}.mlp") -> list[Row]:
    """`fc1` and `fc2`, with biases."""
    return [
        Row(f"{theirs}.fc1.weight", f"{ours}.up.kernel", WIDE),
        Row(f"{theirs}.fc1.bias", f"{ours}.up.bias"),
        Row(f"{theirs}.fc2.weight", f"{ours}.down.kernel", NARROW),
        Row(f"{theirs}.fc2.bias", f"{ours}.down.bias"),
    ]


def tower_rows(norm: NormConfig, theirs: str) -> list[Row]:
    """Of layers of CLIP's and SigLIP's towers, of text and of pictures."""
    names = ("q_proj", "k_proj", "v_proj", "out_proj")
    layer, attention = f"{theirs}.layers.{{layer}}", "{attention}.attention"
    return [
        *projection_rows(f"{layer}.self_attn", attention, names, bias=True, output_bias=True),
        *norm_rows(norm, f"{layer}.layer_norm1", "{attention}.norm"),
        *norm_rows(norm, f"{layer}.layer_norm2", "{mlp}.norm"),
        *fc_rows(f"{layer}.mlp"),
    ]


def text_tower_rows(norm: NormConfig, vocab_size: int) -> list[Row]:
    """Of CLIP's and SigLIP's towers of text, without what is around them."""
    return [
        Row("embeddings.token_embedding.weight", "embedding.weight", rows=vocab_size),
        Row("embeddings.position_embedding.weight", "positions.weight"),
        *tower_rows(norm, "encoder"),
        *norm_rows(norm, "final_layer_norm", "final_norm"),
    ]


NUMBERED_POSITIONS = r"embeddings\.position_ids"
"""Numbers of positions, which older versions saved (a regular expression)."""
