"""A GPT as Megatron-Core has it: `GPTModel`'s names for parameters, and Megatron-LM's for settings."""

from mjx.errors import InputError
from mjx.models.gpt.config import GPTConfig
from mjx.models.gpt.config_keys import canonical
from mjx.models.gpt.megatron_settings import SETTINGS, describes
from mjx.models.gpt.name_map import name_map
from mjx.models.interop.megatron.model import MegatronModel
from mjx.models.interop.megatron.rows import embedding_rows, head_rows, layer_rows
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
    return [
        *embedding_rows(config),
        *layer_rows("decoder.layers.{layer}", config.norm, attention, mlp=config.mlp, moe=config.moe),
        *norm_rows(config.norm, "decoder.final_layernorm", "final_norm"),
        *head_rows(config),
    ]


MEGATRON = MegatronModel(
    name_map=megatron_name_map, settings=SETTINGS, describes=describes, canonical=canonical
)
