"""Mixtures of experts as Megatron-Core has them: Megatron-LM's arguments, and the names of tensors."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.moe import MoEConfig
from mjx.models.interop.canonical import split_layers
from mjx.models.interop.config_map import Entry, Fields, Key, Theirs, get, shown
from mjx.models.interop.megatron.keys import layer_list
from mjx.models.interop.name_map import Row

_WITHOUT_MEANING = (
    *("moe_token_dispatcher_type", "moe_grouped_gemm", "moe_permute_fusion", "moe_router_fusion"),
    *(
        "moe_use_legacy_grouped_gemm",
        "moe_enable_deepep",
        "moe_flex_dispatcher_backend",
        "moe_layer_recompute",
    ),
    *("moe_shared_expert_overlap", "moe_per_layer_logging", "moe_router_padding_for_fp8"),
    *("moe_router_padding_for_quantization", "moe_token_dropping", "moe_deepep_num_sms"),
    *("expert_model_parallel_size", "expert_tensor_parallel_size"),
)
"""How it is computed, not what."""


def settings(layers: Entry) -> tuple[Entry, ...]:
    """The entries of a config map, for a model with `moe`; `layers` says how many experts, and where."""
    return (
        Key("moe_router_topk", "moe.top_k", 2),
        Key(
            *("moe_router_score_function", "moe.router.scores", "softmax"),
            {"softmax": "softmax", "sigmoid": "sigmoid", "sqrtsoftplus": "sqrt-softplus"},
        ),
        _Scaling(),
        Key("moe_router_num_groups", "moe.router.groups", None),
        Key("moe_router_group_topk", "moe.router.top_groups", None),
        Key("moe_router_dtype", "moe.router.precision", "fp32", {"fp32": "float32", "fp64": "float64"}),
        Key("moe_input_jitter_eps", "moe.router.jitter", 0.0),
        Key("moe_z_loss_coeff", "moe.router.z_loss", 0.0),
        _Normalized(),
        _ExpertBias(),
        _Balance(),
        _ExpertFeatures(),
        Key("moe_shared_expert_intermediate_size", "moe.shared_features", None),
        Key("moe_shared_expert_gate", "moe.shared_gate", False),
        Key("moe_latent_size", "moe.latent", None),
        Key(
            *("moe_apply_probs_on_input", "moe.probabilities_on", False),
            {False: "output", True: "input"},
        ),
        Key("moe_expert_capacity_factor", "moe.capacity_factor", None),
        Key("moe_pad_expert_input_to_capacity", "moe.pad_to_capacity", False),
        Key(
            *("moe_token_drop_policy", "moe.drop_by", "probs"),
            {"probs": "probability", "position": "position"},
        ),
        layers,
    )


@dataclasses.dataclass(frozen=True)
class _Normalized:
    """Softmax of the chosen alone, without `moe_router_pre_softmax`; others over their sum, if several."""

    def names(self) -> Sequence[str]:
        return ("moe_router_pre_softmax", "moe_router_topk", "moe_router_score_function")

    def ours(self, theirs: Theirs) -> Fields:
        sinkhorn = _kinds(theirs) == ["sinkhorn"]
        several = (theirs.get("moe_router_topk") or 2) > 1
        softmax = (theirs.get("moe_router_score_function") or "softmax") == "softmax"
        alone = softmax and not several and not sinkhorn and not theirs.get("moe_router_pre_softmax")
        if alone and theirs.get("num_experts"):
            raise InputError(
                f'{theirs.where} has "moe_router_topk": 1, which with softmax needs '
                '"moe_router_pre_softmax": true'
            )
        before = bool(theirs.get("moe_router_pre_softmax")) if softmax else not several
        fields: Fields = {"moe.router.normalized": not before and several and not sinkhorn}
        if sinkhorn:  # whatever moe_router_score_function says
            fields["moe.router.scores"] = "softmax" if several else "sigmoid"
        return fields

    def theirs(self, config: Any) -> dict[str, Any]:
        router = get(config, "moe.router")
        if router is None:
            return {}
        chosen = router.normalized or router.sinkhorn
        return {"moe_router_pre_softmax": router.scores == "softmax" and not chosen}


@dataclasses.dataclass(frozen=True)
class _Scaling:
    """`moe_router_topk_scaling_factor`, which Megatron does not look at where Sinkhorn's scaling chooses."""

    def names(self) -> Sequence[str]:
        return ("moe_router_topk_scaling_factor",)

    def ours(self, theirs: Theirs) -> Fields:
        factor = theirs.get("moe_router_topk_scaling_factor")
        return {"moe.router.scaling": 1.0 if factor is None or _kinds(theirs) == ["sinkhorn"] else factor}

    def theirs(self, config: Any) -> dict[str, Any]:
        return {"moe_router_topk_scaling_factor": get(config, "moe.router.scaling")}


@dataclasses.dataclass(frozen=True)
class _ExpertBias:
    """`moe_router_enable_expert_bias`, and the step by which the biases move."""

    def names(self) -> Sequence[str]:
        return ("moe_router_enable_expert_bias", "moe_router_bias_update_rate")

    def ours(self, theirs: Theirs) -> Fields:
        rate = theirs.get("moe_router_bias_update_rate")
        asked = theirs.get("moe_router_enable_expert_bias")
        return {"moe.router.expert_bias_rate": (1e-3 if rate is None else rate) if asked else None}

    def theirs(self, config: Any) -> dict[str, Any]:
        rate = get(config, "moe.router.expert_bias_rate")
        written: dict[str, Any] = {"moe_router_enable_expert_bias": rate is not None}
        return written if rate is None else {**written, "moe_router_bias_update_rate": rate}


_LOSSES = {
    "aux_loss": "load_balancing_loss",
    "seq_aux_loss": "sequence_load_balancing_loss",
    "global_aux_loss": "global_load_balancing_loss",
}


def _kinds(theirs: Theirs) -> list[str]:
    kinds = theirs.get("moe_router_load_balancing_type") or "aux_loss"
    return [kinds] if isinstance(kinds, str) else list(kinds)


@dataclasses.dataclass(frozen=True)
class _Balance:
    """`moe_router_load_balancing_type`, one or several, and a coefficient for each."""

    def names(self) -> Sequence[str]:
        return ("moe_router_load_balancing_type", "moe_aux_loss_coeff")

    def ours(self, theirs: Theirs) -> Fields:
        kinds = _kinds(theirs)
        weights = theirs.get("moe_aux_loss_coeff") or 0.0
        weights = list(weights) if isinstance(weights, list | tuple) else [weights] * len(kinds)
        known = (*_LOSSES, "sinkhorn", "none")
        for kind in kinds:
            if kind not in known:
                raise InputError(
                    f'{theirs.where} has "moe_router_load_balancing_type": {shown(kind)}; known are '
                    f"{', '.join(known)}"
                )
        if len(weights) != len(kinds):
            raise InputError(
                f'{theirs.where} has {len(weights)} values in "moe_aux_loss_coeff", but {len(kinds)} in '
                '"moe_router_load_balancing_type"'
            )
        given = {
            _LOSSES[kind]: weight for kind, weight in zip(kinds, weights, strict=True) if kind in _LOSSES
        }
        fields: Fields = {f"moe.router.{name}": given.get(name, 0.0) for name in _LOSSES.values()}
        return {**fields, "moe.router.sinkhorn": "sinkhorn" in kinds}

    def theirs(self, config: Any) -> dict[str, Any]:
        router = get(config, "moe.router")
        if router is None:
            return {}
        given = {kind: getattr(router, name) for kind, name in _LOSSES.items() if getattr(router, name)}
        if len(given) > 1:
            return {
                "moe_router_load_balancing_type": list(given),
                "moe_aux_loss_coeff": list(given.values()),
            }
        kind, weight = next(iter(given.items()), ("sinkhorn" if router.sinkhorn else "none", 0.0))
        return {"moe_router_load_balancing_type": kind, "moe_aux_loss_coeff": weight}


@dataclasses.dataclass(frozen=True)
class _ExpertFeatures:
    """`moe_ffn_hidden_size`, without which experts are as wide as the MLP."""

    def names(self) -> Sequence[str]:
        return ("moe_ffn_hidden_size", "ffn_hidden_size")

    def ours(self, theirs: Theirs) -> Fields:
        features = theirs.get("moe_ffn_hidden_size")
        return {} if features is None else {"moe.mlp.features": features}

    def theirs(self, config: Any) -> dict[str, Any]:
        return {"moe_ffn_hidden_size": get(config, "moe.mlp.features")}


@dataclasses.dataclass(frozen=True)
class Experts:
    """`num_experts`, of a model whose pattern says which layers have them."""

    def names(self) -> Sequence[str]:
        return ("num_experts", *_WITHOUT_MEANING)

    def ours(self, theirs: Theirs) -> Fields:
        return {"moe.experts": theirs.get("num_experts")}

    def theirs(self, config: Any) -> dict[str, Any]:
        return {"num_experts": get(config, "moe.experts")}


@dataclasses.dataclass(frozen=True)
class PeriodicLayers:
    """`num_experts` and `moe_layer_freq`, for a model with `mlp`, `moe_pattern` and `dense_layers`: layer i
    has experts where i is a multiple of it, or a list in which 1 has them."""

    def names(self) -> Sequence[str]:
        return ("num_experts", "moe_layer_freq", "num_layers", *_WITHOUT_MEANING)

    def ours(self, theirs: Theirs) -> Fields:
        number = theirs.get("num_experts")
        if not number:
            if theirs.get("moe_ffn_hidden_size"):
                raise InputError(f'{theirs.where} has "moe_ffn_hidden_size", but no "num_experts"')
            return {"moe": None, "moe_pattern": (True,), "dense_layers": 0}
        layers = layer_list(theirs, "moe_layer_freq")
        if isinstance(layers, int):
            layers = (True,) + (False,) * (layers - 1)
        dense, pattern = split_layers(layers or (True,))
        fields: Fields = {"moe.experts": number, "moe_pattern": pattern, "dense_layers": dense}
        return {**fields, "mlp": None} if not dense and all(pattern) else fields

    def theirs(self, config: Any) -> dict[str, Any]:
        if config.moe is None:
            return {"num_experts": None}
        layers = config.moe_layers
        freq = 1 if all(layers) else [int(routed) for routed in layers]
        return {"num_experts": config.moe.experts, "moe_layer_freq": freq}


def moe_rows(moe: MoEConfig, layer: str, ours: str = "{moe}.moe") -> list[Row]:
    """The tensors of a mixture, those of the local layer spec: an MLP of each expert by itself.

    Raises:
        InputError: Megatron-Core has no such mixture.
    """
    if moe.shared_features is not None and moe.mlp.bias:
        raise InputError(
            f"model.moe.shared_features = {moe.shared_features} with model.moe.mlp.bias = true is not in "
            "Megatron-Core, whose shared experts have no biases"
        )
    rows = [Row(f"{layer}.router.weight", f"{ours}.router.kernel", "experts embed -> embed experts")]
    if moe.router.bias:
        rows.append(Row(f"{layer}.router.bias", f"{ours}.router.bias"))
    if moe.router.expert_bias_rate is not None:
        rows.append(Row(f"{layer}.router.expert_bias", f"{ours}.router.expert_bias"))
    rows += mlp_rows(moe.mlp, f"{layer}.experts.local_experts.{{expert}}", f"{ours}.experts")
    if moe.shared_mlp is not None:
        rows += mlp_rows(moe.shared_mlp, f"{layer}.shared_experts", f"{ours}.shared")
        if moe.shared_gate:
            gate = Row(
                f"{layer}.shared_experts.gate_weight", f"{ours}.shared_gate.kernel", "1 embed -> embed"
            )
            rows.append(gate)
    if moe.latent is not None:
        into, out = f"{layer}.fc1_latent_proj.weight", f"{layer}.fc2_latent_proj.weight"
        rows.append(Row(into, f"{ours}.into_latent.kernel", "latent embed -> embed latent"))
        rows.append(Row(out, f"{ours}.out_of_latent.kernel", "embed latent -> latent embed"))
        if moe.mlp.bias:
            rows.append(Row(f"{layer}.fc1_latent_proj.bias", f"{ours}.into_latent.bias"))
            rows.append(Row(f"{layer}.fc2_latent_proj.bias", f"{ours}.out_of_latent.bias"))
    return rows


def mlp_rows(mlp: MLPConfig, theirs: str, ours: str) -> list[Row]:
    """`linear_fc1`, in which the gate comes before the rest, and `linear_fc2`."""
    wide = (f"{ours}.gate", f"{ours}.up") if mlp.gated else (f"{ours}.up",)
    kernels = tuple(f"{each}.kernel" for each in wide)
    rows = [
        Row(f"{theirs}.linear_fc1.weight", kernels, "[mlp] embed -> embed mlp"),
        Row(f"{theirs}.linear_fc2.weight", f"{ours}.down.kernel", "embed mlp -> mlp embed"),
    ]
    if mlp.bias:
        rows += [
            Row(f"{theirs}.linear_fc1.bias", tuple(f"{each}.bias" for each in wide), "[mlp] -> mlp"),
            Row(f"{theirs}.linear_fc2.bias", f"{ours}.down.bias"),
        ]
    return rows
