"""The settings of a case → our config."""

from typing import Any

from mjx.errors import InputError
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.rope import RoPEConfig, RoPEScaling
from mjx.models.gpt import GPTConfig

_ABSENT = (
    "num_moe_experts",
    "multi_latent_attention",
    "mtp_num_layers",
    "pattern",
    "pos",
    "sub",
    "softmax_type",
    "retro_chunk_length",
)


def read_settings(theirs: dict[str, Any], where: str) -> tuple[str, GPTConfig]:
    for name in _ABSENT:
        if theirs.get(name):
            raise InputError(f"{where} has {name} = {theirs[name]}, which mjx does not have")
    norm = NormConfig(
        kind="rmsnorm" if theirs.get("normalization") == "RMSNorm" else "layernorm",
        epsilon=theirs.get("layernorm_epsilon", 1e-5),
    )
    biases = theirs.get("add_bias_linear", True)
    scaling = None
    if theirs.get("rope_scaling"):
        scaling = RoPEScaling(kind="llama3", factor=theirs["rope_scaling_factor"])
    if theirs.get("seq_len_interpolation_factor"):
        scaling = RoPEScaling(kind="linear", factor=theirs["seq_len_interpolation_factor"])
    rope = RoPEConfig(
        base=theirs.get("rotary_base", 10000),
        percent=theirs.get("rotary_percent", 1.0),
        layout="interleaved" if theirs.get("rotary_interleaved") else "halves",
        scaling=scaling,
    )
    learned = theirs["position_embedding_type"] == "learned_absolute"
    activation = {"squared_relu": "relu2", "silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu-tanh"}[
        theirs.get("activation_func", "gelu")
    ]
    return "gpt", GPTConfig(
        num_layers=theirs["num_layers"],
        hidden_size=theirs["hidden_size"],
        vocab_size=theirs["vocab_size"],
        attention=AttentionConfig(
            num_heads=theirs["num_attention_heads"],
            num_query_groups=theirs.get("num_query_groups"),
            head_dim=theirs.get("kv_channels"),
            qkv_bias=theirs.get("add_qkv_bias", biases),
            output_bias=biases,
            qk_norm=norm if theirs.get("qk_layernorm") else None,
            rope=None if learned else rope,
        ),
        mlp=MLPConfig(
            features=theirs["ffn_hidden_size"],
            activation=activation,
            gated=theirs.get("gated_linear_unit", False),
            bias=biases,
        ),
        norm=norm,
        max_positions=theirs["max_sequence_length"] if learned else None,
        tie_embeddings=theirs["share_embeddings_and_output_weights"],
    )
