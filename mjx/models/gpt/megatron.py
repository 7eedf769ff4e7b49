"""A GPT as Megatron-Core has it: `GPTModel`'s names for parameters, and Megatron-LM's for settings."""

from mjx.errors import InputError
from mjx.models.gpt.config import GPTConfig
from mjx.models.gpt.config_keys import canonical
from mjx.models.gpt.megatron_settings import SETTINGS, describes
from mjx.models.gpt.name_map import name_map
from mjx.models.interop.megatron_attention import attention_rows
from mjx.models.interop.megatron_model import MegatronModel
from mjx.models.interop.megatron_moe import mlp_rows, moe_rows
from mjx.models.interop.mixer_rows import norm_rows
from mjx.models.interop.name_map import NameMap, Row


def megatron_name_map(config: GPTConfig) -> NameMap:
    """Megatron's tensors (those of the local layer spec) ↔ our parameters, for this model.

    Raises:
        InputError: Megatron-Core has no such model.
    """
    for name, value, only in (
        ("norm_placement", config.norm_placement, "input"),
        ("parallel_residual", config.parallel_residual, False),
        ("attention.qk_norm_over", config.attention.qk_norm_over, "head"),
    ):
        if value != only:
            raise InputError(f"model.{name} = {value} is not in Megatron-Core, which has only {only}")
    return name_map(config, _rows(config))


def _rows(config: GPTConfig) -> list[Row]:
    attention = config.attention.resolve(config.hidden_size)
    layer = "decoder.layers.{layer}"
    rows = [Row("embedding.word_embeddings.weight", "embedding.weight", rows=config.vocab_size, padded=True)]
    if config.max_positions is not None:
        rows.append(Row("embedding.position_embeddings.weight", "positions.weight"))
    rows += norm_rows(config.norm, f"{layer}.input_layernorm", "{attention}.norm")

    rows += attention_rows(attention, f"{layer}.self_attention")

    if config.mlp is not None:
        rows += norm_rows(config.norm, f"{layer}.pre_mlp_layernorm", "{mlp}.norm")
        rows += mlp_rows(config.mlp, f"{layer}.mlp", "{mlp}.mlp")
    if config.moe is not None:
        rows += norm_rows(config.norm, f"{layer}.pre_mlp_layernorm", "{moe}.norm")
        rows += moe_rows(config.moe, f"{layer}.mlp")

    rows += norm_rows(config.norm, "decoder.final_layernorm", "final_norm")
    if not config.tie_embeddings:
        rows.append(Row("output_layer.weight", "head.weight", rows=config.vocab_size, padded=True))
    return rows


MEGATRON = MegatronModel(
    name_map=megatron_name_map, settings=SETTINGS, describes=describes, canonical=canonical
)
