"""Megatron-Core's names for the parameters of a GPT (`GPTModel` with the local layer spec)."""

import jax
from flax import nnx

from mjx.models.common.name_map import Flat, Grouped, NameMap, Row, Same, Stacked, Transposed, Vocabulary
from mjx.models.common.parameter import parameters_of
from mjx.models.common.stack import find_segments, locate
from mjx.models.gpt.config import GPTConfig


def name_map(config: GPTConfig) -> NameMap:
    """Megatron's tensors ↔ our parameters, for this model."""
    layout = find_segments(config.sublayers())

    def place(kind: str, layer: int) -> tuple[str, int]:
        segment, position, repeat = locate(layout, 2 * layer + ("attention", "mlp").index(kind))
        return f"decoder.segments.{segment}.{position}", repeat

    shapes = parameters_of(jax.eval_shape(lambda: config.build(nnx.Rngs(params=jax.random.key(0)))))
    return NameMap(_rows(config), config.num_layers, place, shapes)


def _rows(config: GPTConfig) -> list[Row]:
    attention, mlp = config.attention.resolve(config.hidden_size), config.mlp
    groups = attention.dims[1]
    table = Vocabulary(config.vocab_size)
    queries = ("query", "gate", "key", "value") if attention.output_gate else ("query", "key", "value")
    layer = "decoder.layers.{layer}"
    inner = f"{layer}.self_attention"

    rows = [Row("embedding.word_embeddings.weight", ("embedding.weight",), table)]
    if config.max_positions is not None:
        rows.append(Row("embedding.position_embeddings.weight", ("positions.weight",)))
    rows += _norm_rows(config, f"{layer}.input_layernorm", "{attention}.norm")
    rows.append(
        Row(
            f"{inner}.linear_qkv.weight",
            tuple(f"{{attention}}.attention.{name}.kernel" for name in queries),
            Grouped(groups),
        )
    )
    if attention.qkv_bias:
        rows.append(
            Row(
                f"{inner}.linear_qkv.bias",
                tuple(f"{{attention}}.attention.{name}.bias" for name in queries),
                Grouped(groups, kernel=False),
            )
        )
    if attention.qk_norm is not None:
        for theirs, ours in (("q", "query"), ("k", "key")):
            rows.append(Row(f"{inner}.{theirs}_layernorm.weight", (f"{{attention}}.attention.{ours}_norm.scale",)))
            if attention.qk_norm.kind == "layernorm":
                rows.append(Row(f"{inner}.{theirs}_layernorm.bias", (f"{{attention}}.attention.{ours}_norm.bias",)))
    if attention.softmax == "learnable":
        rows.append(Row(f"{inner}.core_attention.softmax_offset", ("{attention}.attention.sinks",)))
    rows.append(Row(f"{inner}.linear_proj.weight", ("{attention}.attention.output.kernel",), Transposed()))
    if attention.output_bias:
        rows.append(Row(f"{inner}.linear_proj.bias", ("{attention}.attention.output.bias",), Flat()))

    rows += _norm_rows(config, f"{layer}.pre_mlp_layernorm", "{mlp}.norm")
    wide = ("{mlp}.mlp.gate", "{mlp}.mlp.up") if mlp.gated else ("{mlp}.mlp.up",)
    rows.append(Row(f"{layer}.mlp.linear_fc1.weight", tuple(f"{name}.kernel" for name in wide), Stacked()))
    rows.append(Row(f"{layer}.mlp.linear_fc2.weight", ("{mlp}.mlp.down.kernel",), Transposed()))
    if mlp.bias:
        biases = tuple(f"{name}.bias" for name in wide)
        rows.append(Row(f"{layer}.mlp.linear_fc1.bias", biases, Stacked(kernel=False)))
        rows.append(Row(f"{layer}.mlp.linear_fc2.bias", ("{mlp}.mlp.down.bias",)))

    rows += _norm_rows(config, "decoder.final_layernorm", "final_norm")
    if not config.tie_embeddings:
        rows.append(Row("output_layer.weight", ("head.weight",), table))
    return rows


def _norm_rows(config: GPTConfig, theirs: str, ours: str) -> list[Row]:
    rows = [Row(f"{theirs}.weight", (f"{ours}.scale",), Same())]
    if config.norm.kind == "layernorm":
        rows.append(Row(f"{theirs}.bias", (f"{ours}.bias",), Same()))
    return rows
