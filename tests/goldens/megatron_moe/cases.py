"""Layers with experts as Megatron-Core's `TransformerConfig` says them, and what is drawn for them."""

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

ROWS, SEQUENCE, HIDDEN = 2, 9, 6
PADDED = np.arange(SEQUENCE) >= np.array([[5], [7]])
"""Which tokens are padding, in those cases that have any."""
EVENLY_PADDED = np.broadcast_to(np.arange(SEQUENCE) >= 6, (ROWS, SEQUENCE))

BASE = {
    "num_layers": 1,
    "hidden_size": HIDDEN,
    "num_attention_heads": 2,
    "ffn_hidden_size": 4,
    "moe_ffn_hidden_size": 4,
    "num_moe_experts": 4,
    "moe_router_topk": 2,
    "moe_token_dispatcher_type": "alltoall",
    "moe_router_load_balancing_type": "none",
    "gated_linear_unit": True,
    "activation_func": "silu",
    "add_bias_linear": False,
    "bias_activation_fusion": False,
}
_EIGHT = {"num_moe_experts": 8, "moe_router_topk": 4}
_SIGMOID = {"moe_router_score_function": "sigmoid"}
_BIASED = {**_SIGMOID, "moe_router_enable_expert_bias": True, "moe_router_bias_update_rate": 1e-2}
_GROUPS = {**_EIGHT, "moe_router_num_groups": 4, "moe_router_group_topk": 2}
_PRE = {"moe_router_pre_softmax": True}
_ONE = {"moe_router_topk": 1}
_SINKHORN = {"moe_router_load_balancing_type": "sinkhorn"}
_GELU = {"add_bias_linear": True, "gated_linear_unit": False, "activation_func": "gelu"}


def _loss(kind: str, coefficient: float = 0.1) -> dict[str, Any]:
    return {"moe_router_load_balancing_type": f"{kind}_loss", "moe_aux_loss_coeff": coefficient}


_ALL_LOSSES = {
    "moe_router_load_balancing_type": ["aux_loss", "seq_aux_loss", "global_aux_loss"],
    "moe_aux_loss_coeff": [0.1, 0.2, 0.05],
    "moe_z_loss_coeff": 0.02,
}


def _capacity(factor: float, policy: str = "probs", *, pad: bool = False) -> dict[str, Any]:
    return {
        "moe_expert_capacity_factor": factor,
        "moe_token_drop_policy": policy,
        "moe_pad_expert_input_to_capacity": pad,
    }


CASES: dict[str, dict[str, Any]] = {
    # The router.
    "softmax": {},
    "pre_softmax": _PRE,
    "pre_softmax_groups": {**_PRE, **_GROUPS},
    "softmax_groups": _GROUPS,
    "softmax_scaled": {"moe_router_topk_scaling_factor": 1.5},
    "pre_softmax_top_1_scaled": {**_PRE, **_ONE, "moe_router_topk_scaling_factor": 2.5},
    "top_4_of_8": _EIGHT,
    "sigmoid": _SIGMOID,
    "sigmoid_top_1": {**_SIGMOID, **_ONE},
    "sigmoid_top_4_scaled": {**_SIGMOID, **_EIGHT, "moe_router_topk_scaling_factor": 2.5},
    "sigmoid_groups": {**_SIGMOID, **_GROUPS},
    "sigmoid_bias": _BIASED,
    "sigmoid_bias_top_1": {**_BIASED, **_ONE},
    "sigmoid_bias_groups_scaled": {**_BIASED, **_GROUPS, "moe_router_topk_scaling_factor": 2.5},
    "sinkhorn_top_1": {**_SINKHORN, **_ONE},
    "sinkhorn_top_2": _SINKHORN,
    "sinkhorn_scaled": {**_SINKHORN, **_ONE, "moe_router_topk_scaling_factor": 2.0},
    # What balances the experts.
    "aux": _loss("aux"),
    "seq_aux": _loss("seq_aux"),
    "global_aux": _loss("global_aux"),
    "aux_pre_softmax": {**_PRE, **_loss("aux")},
    "aux_groups": {**_GROUPS, **_loss("aux")},
    "aux_sigmoid": {**_SIGMOID, **_loss("aux")},
    "aux_sigmoid_bias": {**_BIASED, **_loss("aux")},
    "seq_aux_sigmoid_bias": {**_BIASED, **_EIGHT, **_loss("seq_aux")},
    "global_aux_sigmoid_bias": {**_BIASED, **_loss("global_aux")},
    "z": {"moe_z_loss_coeff": 0.03},
    "z_sigmoid_bias": {**_BIASED, "moe_z_loss_coeff": 0.03},
    "z_sinkhorn": {**_SINKHORN, **_ONE, "moe_z_loss_coeff": 0.03},
    "two_losses": {
        "moe_router_load_balancing_type": ["seq_aux_loss", "aux_loss"],
        "moe_aux_loss_coeff": [0.1, 0.02],
    },
    "all_losses_sigmoid_bias_groups": {**_BIASED, **_GROUPS, **_ALL_LOSSES},
    # Room for fewer tokens than come.
    "capacity_half": _capacity(0.5),
    "capacity_1": _capacity(1.0),
    "capacity_half_sigmoid_bias": {**_BIASED, **_capacity(0.5)},
    "capacity_1_25_sigmoid_bias_aux": {**_BIASED, **_loss("aux"), **_capacity(1.25)},
    "capacity_pad_half_bias": {**_GELU, **_capacity(0.5, pad=True)},
    "capacity_half_position": _capacity(0.5, "position"),
    "capacity_1_position_top_1": {**_PRE, **_ONE, **_capacity(1.0, "position")},
    "capacity_large": _capacity(4.0),
    # The experts.
    "gelu_bias": _GELU,
    "quick_geglu_clamp_offset": {
        "activation_func": "quick_gelu",
        "glu_linear_offset": 1.0,
        "activation_func_clamp_value": 0.7,
        "add_bias_linear": True,
    },
    "ungated_clamp": {**_GELU, "activation_func_clamp_value": 0.1},
    "probs_on_input_bias_sigmoid": {
        **_SIGMOID,
        **_ONE,
        "moe_apply_probs_on_input": True,
        "add_bias_linear": True,
    },
    "shared_gate": {"moe_shared_expert_intermediate_size": 5, "moe_shared_expert_gate": True},
    "latent_shared_sigmoid_bias": {**_BIASED, "moe_latent_size": 3, "moe_shared_expert_intermediate_size": 5},
    "latent_bias": {"moe_latent_size": 3, "add_bias_linear": True},
    # Tokens that do not count.
    "padded_losses": {
        "moe_router_load_balancing_type": ["aux_loss", "global_aux_loss"],
        "moe_aux_loss_coeff": [0.1, 0.05],
        "moe_z_loss_coeff": 0.02,
    },
    "padded_aux_sigmoid": {**_SIGMOID, **_loss("aux"), "moe_z_loss_coeff": 0.02},
    "evenly_padded_all_losses": {**_SIGMOID, **_ALL_LOSSES},
}


def padding_of(name: str) -> np.ndarray | None:
    """Which tokens are padding: (rows, sequence); None: the case knows of none."""
    return {"padded": PADDED, "evenly": EVENLY_PADDED}.get(name.split("_")[0])


def drawn(name: str, what: str, shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
    """Numbers that a case's name and their own decide."""
    draw = np.random.RandomState(zlib.crc32(f"{name}/{what}".encode()))
    return (scale * draw.randn(*shape)).astype(np.float32)


def weights(name: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Of a layer, by Megatron's names; experts' biases for choosing are small, as training makes them."""
    return {
        key: drawn(name, key, shape, 0.1 if key.endswith("expert_bias") else 0.5)
        for key, shape in shapes.items()
    }


def read_by(name: str) -> np.ndarray:
    """What goes into the layer: (rows, sequence, hidden)."""
    return drawn(name, "x", (ROWS, SEQUENCE, HIDDEN))


def slope_of(name: str) -> np.ndarray:
    """The loss is the sum of what the layer writes times this."""
    return drawn(name, "slope", (ROWS, SEQUENCE, HIDDEN))
