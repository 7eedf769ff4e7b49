"""Hugging Face's decoder-only mixtures of experts that a GPT can be.

What a router adds to the loss is the run's own choice (`model.moe.router.load_balancing_loss`), whatever
`router_aux_loss_coef` is: transformers adds it only with `output_router_logits`, and counts the choices of
all layers together, where each of ours is balanced by itself.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models.gpt.config import GPTConfig
from mjx.models.gpt.config_keys import window_layers
from mjx.models.gpt.huggingface_entries import (
    ALL_BIASES,
    HEAD_DIM,
    SHARED,
    UNTIED,
    architecture,
    groups,
    qk_norm,
    rms_epsilon,
)
from mjx.models.gpt.huggingface_keys import LayerTypes
from mjx.models.gpt.huggingface_names import gpt_oss_names, mixtral_names
from mjx.models.interop.architecture import ACTIVATIONS, Quantization
from mjx.models.interop.canonical import split_layers
from mjx.models.interop.config_map import Constant, Entry, Fields, Key, Only, ResolvedKey, Theirs, get, shown
from mjx.models.interop.rope_keys import RopeKeys


@dataclasses.dataclass(frozen=True)
class _OfExperts(Key):
    """A key of the experts, which is left out where no layer has any."""

    def theirs(self, config: GPTConfig) -> dict[str, Any]:
        return {} if config.moe is None else super().theirs(config)


@dataclasses.dataclass(frozen=True)
class _DenseFeatures(Key):
    """The width of the layers without experts. Where all have them it is a number that nobody reads."""

    def theirs(self, config: GPTConfig) -> dict[str, Any]:
        features = get(config, "mlp.features")
        return {self.name: get(config, "moe.mlp.features") if features is None else features}


@dataclasses.dataclass(frozen=True)
class _SparseLayers:
    """Layer i, from 0, has experts if `decoder_sparse_step` divides i + 1 and `mlp_only_layers` lacks i."""

    def names(self) -> Sequence[str]:
        return ("decoder_sparse_step", "mlp_only_layers", "num_hidden_layers", "num_experts")

    def ours(self, theirs: Theirs) -> Fields:
        number, dense = theirs.get("num_hidden_layers"), theirs.get("mlp_only_layers") or []
        step = theirs.get("decoder_sparse_step")
        step = 1 if step is None else step
        if type(step) is not int or step < 1:
            raise InputError(
                f'{theirs.where} has "decoder_sparse_step": {shown(step)}, which should be a number from 1 on'
            )
        if not isinstance(dense, list) or any(type(layer) is not int for layer in dense):
            raise InputError(
                f'{theirs.where} has "mlp_only_layers": {shown(dense)}, which should be a list of layers'
            )
        if type(number) is not int:
            raise InputError(
                f'{theirs.where} has "num_hidden_layers": {shown(number)}, which should be a number'
            )
        has_experts = theirs.get("num_experts") != 0
        layers = tuple(
            has_experts and (layer + 1) % step == 0 and layer not in dense for layer in range(number)
        )
        if not any(layers):
            return {"moe": None, "moe_pattern": (True,), "dense_layers": 0}
        first, pattern = split_layers(layers)
        fields: Fields = {"moe_pattern": pattern, "dense_layers": first}
        return {**fields, "mlp": None} if all(layers) else fields

    def theirs(self, config: GPTConfig) -> dict[str, Any]:
        dense = [layer for layer, routed in enumerate(config.moe_layers) if not routed]
        return {"decoder_sparse_step": 1, "mlp_only_layers": dense}


@dataclasses.dataclass(frozen=True)
class _WindowOfAll:
    """`sliding_window` of every layer, or with `use_sliding_window` false of none."""

    def names(self) -> Sequence[str]:
        return ("sliding_window", "use_sliding_window")

    def ours(self, theirs: Theirs) -> Fields:
        window = theirs.get("sliding_window", 4096)
        return {"attention.window": window if theirs.get("use_sliding_window") else None}

    def theirs(self, config: GPTConfig) -> dict[str, Any]:
        window = config.attention.window if any(window_layers(config)) else None
        return {"sliding_window": window, "use_sliding_window": window is not None}


_DECODER = (*SHARED, Constant("norm.kind", "rmsnorm"), UNTIED, Constant("moe.mlp.gated", True))
_TRAINED_BY = ("router_aux_loss_coef", "output_router_logits")
"""What transformers adds to the loss."""


def _experts(key: str, number: int, top_k: int, *, features: Entry, also: str) -> tuple[Entry, ...]:
    """Their sizes, and what they are where the keys are missing."""
    return (
        _OfExperts(key, "moe.experts", number, also=(also,)),
        _OfExperts("num_experts_per_tok", "moe.top_k", top_k),
        features,
    )


_SAME_WIDTH = Key("intermediate_size", "moe.mlp.features")
_EXPERTS_ALONE: tuple[Entry, ...] = (
    Constant("mlp", None),
    Key("hidden_act", "moe.mlp.activation", "silu", ACTIVATIONS),
)
_NORMALIZED = Constant("moe.router.normalized", True)
_MAY_BE_NORMALIZED = _OfExperts("norm_topk_prob", "moe.router.normalized", False)
_QWEN = (
    *_DECODER,
    _DenseFeatures("intermediate_size", "mlp.features"),
    Key("hidden_act", ("mlp.activation", "moe.mlp.activation"), "silu", ACTIVATIONS),
    Constant("mlp.gated", True),
    _MAY_BE_NORMALIZED,
    _SparseLayers(),
    RopeKeys(),
    HEAD_DIM,
)

MIXTURES = (
    architecture(
        *("mixtral", "MixtralForCausalLM"),
        *(*_DECODER, *_EXPERTS_ALONE, groups(8, null=True), HEAD_DIM, rms_epsilon(1e-5)),
        *_experts("num_local_experts", 8, 2, features=_SAME_WIDTH, also="num_experts"),
        _NORMALIZED,
        Key("router_jitter_noise", "moe.router.jitter", 0.0),
        Key("sliding_window", "attention.window", None, null=True),
        RopeKeys(default_base=1e6),
        names=mixtral_names,
        without_meaning=_TRAINED_BY,
    ),
    architecture(
        *("qwen2_moe", "Qwen2MoeForCausalLM"),
        *(*_QWEN, groups(16, null=True), rms_epsilon(1e-6)),
        *_experts(
            *("num_experts", 60, 4),
            features=_OfExperts("moe_intermediate_size", "moe.mlp.features", 1408),
            also="num_local_experts",
        ),
        _OfExperts("shared_expert_intermediate_size", "moe.shared_features", 5632),
        Constant("moe.shared_gate", True),
        Key("qkv_bias", "attention.qkv_bias", True),
        LayerTypes(
            lambda theirs, layer: layer % 2 == 0 and layer < theirs.get("max_window_layers", 28),
            older=("max_window_layers",),
            enabled="use_sliding_window",
        ),
        without_meaning=_TRAINED_BY,
    ),
    architecture(
        *("qwen3_moe", "Qwen3MoeForCausalLM"),
        *(*_QWEN, *qk_norm(), groups(4, null=True), ALL_BIASES, _WindowOfAll()),
        rms_epsilon(1e-6, "attention.qk_norm.epsilon"),
        *_experts(
            *("num_experts", 128, 8),
            features=_OfExperts("moe_intermediate_size", "moe.mlp.features", 768),
            also="num_local_experts",
        ),
        # transformers normalises queries and keys of all of these models, and gives none a shared expert.
        without_meaning=(*_TRAINED_BY, "max_window_layers", "use_qk_norm"),
    ),
    architecture(
        *("gpt_oss", "GptOssForCausalLM"),
        *(*_DECODER, groups(8, null=True), rms_epsilon(1e-5)),
        *_experts("num_local_experts", 128, 4, features=_SAME_WIDTH, also="num_experts"),
        ResolvedKey("head_dim", "attention.head_dim", 64, null=True),
        Key("attention_bias", ("attention.qkv_bias", "attention.output_bias"), True),
        Constant("attention.softmax", "learnable"),
        LayerTypes(lambda theirs, layer: layer % 2 == 0, older=(), window=128),
        RopeKeys(
            default_base=150_000.0,
            unsaid={
                **{"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0},
                **{"truncate": False, "original_max_position_embeddings": 4096},
            },
        ),
        *(_NORMALIZED, Constant("mlp", None), Constant("moe.router.bias", True)),
        *(Constant("moe.mlp.activation", "quick-gelu"), Constant("moe.mlp.bias", True)),
        Constant("moe.mlp.linear_offset", 1.0),
        Key("swiglu_limit", "moe.mlp.clamp", 7.0),
        Only("swiglu_alpha", 1.702),
        names=gpt_oss_names,
        # transformers reads no hidden_act, and num_experts_per_tok in place of the original's words.
        without_meaning=(*_TRAINED_BY, "hidden_act", "experts_per_token", "initial_context_length"),
        quantization=Quantization(("mxfp4",)),
    ),
    architecture(
        *("olmoe", "OlmoeForCausalLM"),
        *(*_DECODER, *_EXPERTS_ALONE, groups(None), ALL_BIASES, RopeKeys()),
        *_experts("num_experts", 64, 8, features=_SAME_WIDTH, also="num_local_experts"),
        *(*qk_norm(over="all_heads"), rms_epsilon(1e-5, "attention.qk_norm.epsilon")),
        _MAY_BE_NORMALIZED,
        Only("clip_qkv", None),
        without_meaning=_TRAINED_BY,
    ),
)
