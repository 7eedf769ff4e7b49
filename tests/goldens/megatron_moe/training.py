"""Short training runs of models with experts, by Megatron-Core's settings, and what is drawn for them."""

import zlib

import numpy as np

STEPS, MICROBATCH, SEQUENCE, VOCABULARY = 12, 2, 12, 48
LEARNING_RATE, LAST, WARMUP = 1e-2, 1e-3, 3
"""Of a cosine over all steps."""
WEIGHT_DECAY, BETAS, EPSILON, CLIP = 0.1, (0.9, 0.95), 1e-8, 0.5

_MODEL = {
    "num_layers": 2,
    "hidden_size": 16,
    "num_attention_heads": 4,
    "num_query_groups": 2,
    "ffn_hidden_size": 24,
    "normalization": "RMSNorm",
    "gated_linear_unit": True,
    "activation_func": "silu",
    "add_bias_linear": False,
    "bias_activation_fusion": False,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "num_moe_experts": 4,
    "moe_router_topk": 2,
    "moe_ffn_hidden_size": 12,
    "moe_token_dispatcher_type": "alltoall",
    "moe_router_score_function": "sigmoid",
    "moe_router_enable_expert_bias": True,
    "moe_router_bias_update_rate": 1e-2,
}
RUNS = {
    "aux": (
        {
            **_MODEL,
            "moe_router_load_balancing_type": "aux_loss",
            "moe_aux_loss_coeff": 1e-2,
            "moe_z_loss_coeff": 1e-3,
        },
        1,
    ),
    "global_aux": (
        {
            **_MODEL,
            "num_moe_experts": 8,
            "moe_router_topk": 4,
            "moe_router_num_groups": 4,
            "moe_router_group_topk": 2,
            "moe_router_topk_scaling_factor": 2.5,
            "moe_layer_freq": [0, 1],
            "moe_shared_expert_intermediate_size": 8,
            "moe_router_load_balancing_type": "global_aux_loss",
            "moe_aux_loss_coeff": 0.2,
        },
        2,
    ),
}
"""Name → the model's settings, and how many microbatches a step has."""
MODEL = {"position_embedding_type": "rope", "share_embeddings_and_output_weights": False}
"""GPTModel's arguments."""


def start(run: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A parameter at the start; norms' gains are near 1."""
    drawn = 0.1 * np.random.RandomState(zlib.crc32(f"{run}/{name}".encode())).randn(*shape)
    return ((1 + drawn) if "norm" in name else drawn).astype(np.float32)


def tokens(run: str, step: int) -> np.ndarray:
    """(microbatches, rows, sequence + 1): random tokens."""
    shape = (RUNS[run][1], MICROBATCH, SEQUENCE + 1)
    return np.random.RandomState(100 + step).randint(0, VOCABULARY, shape)
