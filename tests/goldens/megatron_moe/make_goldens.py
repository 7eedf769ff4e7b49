"""Makes layers.npz: what MoELayer of Megatron-Core 0.16.1 makes of the cases, and its gradients.

    PYTHONPATH=ORACLES python make_goldens.py

ORACLES is the folder of `megatron_cpu.py`, which lets Megatron-Core run without a GPU (torch 2.13). Of each
case: y, its gradients `g/` (of experts those of the first), losses `aux/` (without their weights), y in
evaluation where that is another, the tokens of each expert, and their biases after one step.
"""

import re
from pathlib import Path

import cases
import megatron_cpu
import numpy as np
import torch

HERE = Path(__file__).parent


class Linear(torch.nn.Linear):
    """Stands for Transformer Engine's, which only latent projections ask for."""

    def __init__(self, inputs, outputs, *, bias, **_):
        super().__init__(inputs, outputs, bias=bias)

    def forward(self, x):
        return super().forward(x), None


_topk = torch.topk


def first_of_equals(input, k, dim=-1, **options):
    """torch.topk leaves open which of equals it takes, and for the policy "position" all tokens are equal."""
    if input.is_floating_point():
        return _topk(input, k, dim=dim, **options)
    values, places = torch.sort(input, dim=dim, descending=True, stable=True)
    return values.narrow(dim, 0, k), places.narrow(dim, 0, k)


def run(name: str) -> dict[str, np.ndarray]:
    from megatron.core.activations import quick_gelu
    from megatron.core.models.gpt.moe_module_specs import get_moe_module_spec
    from megatron.core.transformer.moe import moe_layer
    from megatron.core.transformer.moe.moe_utils import (
        get_moe_layer_wise_logging_tracker,
        get_updated_expert_bias,
    )
    from megatron.core.transformer.spec_utils import build_module
    from megatron.core.transformer.transformer_config import TransformerConfig

    moe_layer.TELinear, moe_layer.HAVE_TE = Linear, True
    functional = torch.nn.functional
    functions = {"silu": functional.silu, "gelu": functional.gelu, "quick_gelu": quick_gelu}
    settings = {**cases.BASE, **cases.CASES[name]}
    settings["activation_func"] = functions[settings["activation_func"]]
    off = dict.fromkeys(
        ("bias_dropout_fusion", "masked_softmax_fusion", "gradient_accumulation_fusion"), False
    )
    config = TransformerConfig(
        **settings, **off, use_cpu_initialization=True, params_dtype=torch.float32, hidden_dropout=0.0
    )
    spec = get_moe_module_spec(use_te=False, num_experts=config.num_moe_experts, moe_grouped_gemm=False)
    layer = build_module(spec, config=config, layer_number=1)
    layer.set_layer_number(1)
    tensors = dict(layer.named_parameters())
    if config.moe_router_enable_expert_bias:
        tensors["router.expert_bias"] = layer.router.expert_bias
    values = cases.weights(name, {key: tuple(tensor.shape) for key, tensor in tensors.items()})
    with torch.no_grad():
        for key, tensor in tensors.items():
            tensor.copy_(torch.from_numpy(values[key]))
    x = torch.from_numpy(cases.read_by(name)).transpose(0, 1).contiguous().requires_grad_()
    slope = torch.from_numpy(cases.slope_of(name)).transpose(0, 1)
    padding = cases.padding_of(name)
    around = {} if padding is None else {"padding_mask": torch.from_numpy(padding.copy())}
    tracker = get_moe_layer_wise_logging_tracker()
    tracker.clear()
    layer.train()
    y, bias = layer(x, **around)
    assert bias is None
    (y * slope).sum().backward()
    found = {"y": y.detach().transpose(0, 1), "g/x": x.grad.transpose(0, 1)}
    found |= {
        f"g/{key}": p.grad if p.grad is not None else torch.zeros_like(p)
        for key, p in layer.named_parameters()
    }
    found |= {f"aux/{key}": value["values"] for key, value in tracker.items() if "values" in value}
    if config.moe_router_enable_expert_bias:
        found["tokens"] = layer.router.local_tokens_per_expert.clone()
        found["expert_bias"] = get_updated_expert_bias(
            layer.router.local_tokens_per_expert[None].clone(),
            layer.router.expert_bias[None],
            config.moe_router_bias_update_rate,
        )[0]
    layer.eval()
    with torch.no_grad():
        evaluated = layer(x)[0].transpose(0, 1)
    if not torch.equal(evaluated, found["y"]):
        found["y_eval"] = evaluated
    others = re.compile(r"g/experts\.local_experts\.[1-9]")
    return {key: value.detach().numpy() for key, value in found.items() if not others.match(key)}


if __name__ == "__main__":
    megatron_cpu.boot("0_16_1")
    torch.topk = first_of_equals
    arrays = {f"{case}/{key}": value for case in cases.CASES for key, value in run(case).items()}
    np.savez_compressed(HERE / "layers.npz", **arrays)
