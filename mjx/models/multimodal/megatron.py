"""Megatron-Core's `LLaVAModel`: its names for parameters, and the arguments that it is made with."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models.common.parameter import parameters_of
from mjx.models.family import abstract_model
from mjx.models.interop.config_map import ConfigMap, Fields, Theirs, shown
from mjx.models.interop.megatron.model import MegatronModel
from mjx.models.interop.megatron.settings import megatron_model, read_settings, settings_of
from mjx.models.interop.name_map import NameMap, Row
from mjx.models.multimodal.config import MultimodalConfig
from mjx.models.multimodal.megatron_flat import FLAT, LAYERS_OF_ITS_OWN, is_flat, unfolded
from mjx.parse import to_tree

_LANGUAGE, _VISION, _PROJECTION = (
    f"{name}_config" for name in ("language_transformer", "vision_transformer", "vision_projection")
)
_OF_LANGUAGE = {
    "language_vocab_size": "vocab_size",
    "language_max_sequence_length": "max_sequence_length",
    "language_position_embedding_type": "position_embedding_type",
    "language_rotary_percent": "rotary_percent",
    "language_rotary_base": "rotary_base",
}
_UNTIED = "untie_embeddings_and_output_weights"
_OF_VISION = ("vision_model_type", "img_h", "img_w", "patch_dim", "class_token_len")
_ACTIVATIONS = {
    "gelu": "gelu",
    "fast_gelu": "gelu-tanh",
    "silu": "silu",
    "quick_gelu": "quick-gelu",
    "squared_relu": "relu2",
}


def megatron_name_map(config: MultimodalConfig) -> NameMap:
    """Megatron's tensors (those of the local layer spec) ↔ our parameters, for this model.

    Raises:
        InputError: Megatron-Core has no such model.
    """
    if config.vision_layers not in (None, config.vision.num_layers):
        raise InputError(f"model.vision_layers = {config.vision_layers} is not in Megatron-Core's LLaVA")
    if config.projector.norm is not None:
        raise InputError("model.projector.norm is in no tensor of Megatron-Core's LLaVA that mjx knows")
    affine = config.projector.kind == "affine"
    layers = {
        "encoder.linear_fc1": ("up", "mlp latent -> latent mlp"),
        "encoder.linear_fc2": ("down", "embed mlp -> mlp embed"),
    }
    if affine:
        layers = {"encoder": ("down", "embed latent -> latent embed")}
    rows = [Row(f"{theirs}.weight", f"{ours}.kernel", layout) for theirs, (ours, layout) in layers.items()]
    if config.projector.bias:
        rows += [Row(f"{theirs}.bias", f"{ours}.bias") for theirs, (ours, _) in layers.items()]
    projector = parameters_of(abstract_model(config))["projector"]
    return NameMap.joined(
        {
            "vision.": ("vision_model.", megatron_model(config.vision).name_map(config.vision)),
            "projector.": ("vision_projection.", NameMap(rows, 0, lambda *_: None, projector)),
            "language.": ("language_model.", megatron_model(config.language).name_map(config.language)),
        }
    )


@dataclasses.dataclass(frozen=True)
class _Parts:
    """The configs of the parts, with what the arguments beside them say of each."""

    def names(self) -> Sequence[str]:
        return (
            _LANGUAGE,
            _VISION,
            _PROJECTION,
            *_OF_LANGUAGE,
            _UNTIED,
            *_OF_VISION,
            "vision_projection_type",
            *FLAT,
        )

    def ours(self, theirs: Theirs) -> Fields:
        scripts, theirs = is_flat(theirs), unfolded(theirs)
        language = dict(self._part(theirs, _LANGUAGE))
        language |= {
            ours: theirs[name] for name, ours in _OF_LANGUAGE.items() if theirs.get(name) is not None
        }
        if theirs.get(_UNTIED) is not None:  # LLaVAModel's own spelling, beside the fields of a config
            language["share_embeddings_and_output_weights"] = not theirs[_UNTIED]
        vision = dict(self._part(theirs, _VISION))
        vision |= {name: theirs[name] for name in _OF_VISION if theirs.get(name) is not None}
        fields: Fields = {}
        for field, settings in (("language", language), ("vision", vision)):
            family, config = read_settings(settings, f"{theirs.where}, {field}")
            fields[field] = {**to_tree(config), "family": family}
        if scripts:
            own = LAYERS_OF_ITS_OWN.get(theirs["vision_model_type"], {})
            attention = fields["vision"]["attention"] | own.get("attention", {})
            fields["vision"] |= {**own, "attention": attention}
        return fields | self._projector(theirs)

    def _projector(self, theirs: Theirs) -> Fields:
        settings, kind = self._part(theirs, _PROJECTION), theirs.get("vision_projection_type") or "mlp"
        if kind not in ("mlp", "affine"):
            raise InputError(
                f'{theirs.where} has "vision_projection_type": {shown(kind)}; known are mlp and affine'
            )
        activation = settings.get("activation_func", "gelu")
        named = next((name for name in _ACTIVATIONS if name in str(activation)), None)
        named = "quick_gelu" if "quick" in str(activation) else named
        if named is None or settings.get("gated_linear_unit"):
            raise InputError(
                f"{theirs.where} has a projection with activation_func = {shown(activation)}"
                f"{' and a gate' if settings.get('gated_linear_unit') else ''}, which mjx does not compute"
            )
        fields: Fields = {}
        if settings.get("input_norm"):
            kinds = {"LayerNorm": "layernorm", "RMSNorm": "rmsnorm"}
            fields = {
                "projector.norm.kind": kinds[settings["input_norm"]],
                "projector.norm.epsilon": settings["norm_epsilon"],
            }
        return {
            **fields,
            "projector.kind": kind,
            "projector.activation": _ACTIVATIONS[named],
            "projector.bias": settings.get("add_bias_linear", True),
            "projector.features": settings.get("ffn_hidden_size") if kind == "mlp" else None,
        }

    def theirs(self, config: MultimodalConfig) -> dict[str, Any]:
        projector = config.projector
        named = next(name for name, ours in _ACTIVATIONS.items() if ours == projector.activation)
        return {
            _LANGUAGE: settings_of(config.language),
            _VISION: settings_of(config.vision),
            _PROJECTION: {
                "activation_func": named,
                "add_bias_linear": projector.bias,
                "ffn_hidden_size": projector.features,
            },
            "vision_projection_type": projector.kind,
        }

    def _part(self, theirs: Theirs, name: str) -> Mapping[str, Any]:
        given = theirs.get(name) or {}
        if not isinstance(given, Mapping):
            raise InputError(f'{theirs.where} has "{name}": {shown(given)}, which should be an object')
        return given


@dataclasses.dataclass(frozen=True)
class _Places:
    """What takes a place in the text: `drop_vision_class_token`, `pixel_shuffle`, `image_token_index`."""

    def names(self) -> Sequence[str]:
        return ("drop_vision_class_token", "pixel_shuffle", "image_token_index")

    def ours(self, theirs: Theirs) -> Fields:
        theirs = unfolded(theirs)
        shuffled = bool(theirs.get("pixel_shuffle"))
        token = theirs.get("image_token_index")
        return {
            "learned_seen": not theirs.get("drop_vision_class_token") and not shuffled,
            "merged": 4 if shuffled else 1,
            # Theirs, -200, stands for a picture and is no token of the vocabulary.
            "image_token": token if isinstance(token, int) and token >= 0 else 0,
        }

    def theirs(self, config: MultimodalConfig) -> dict[str, Any]:
        return {
            "drop_vision_class_token": not config.learned_seen,
            "pixel_shuffle": config.merged == 4,
            "image_token_index": config.image_token,
        }


def describes(theirs: Mapping[str, Any]) -> bool:
    """Whether arguments are of this family: those of `LLaVAModel` name the configs of its parts, a script's
    the kind of its language model."""
    return is_flat(theirs) or (theirs.get(_LANGUAGE) is not None and theirs.get(_VISION) is not None)


def _canonical(config: MultimodalConfig) -> MultimodalConfig:
    """One spelling for all configs of the same model, without what only training chooses."""
    learned = config.vision.learned_tokens > 0
    return dataclasses.replace(
        config,
        language=megatron_model(config.language).canonical(config.language),
        vision=megatron_model(config.vision).canonical(config.vision),
        vision_layers=None,
        learned_seen=config.learned_seen and learned,
        dtype="auto",
    )


MEGATRON = MegatronModel(
    name_map=megatron_name_map,
    settings=ConfigMap(MultimodalConfig, (_Parts(), _Places()), closed=False),
    describes=describes,
    canonical=_canonical,
    parts=lambda config: (config.language,),
)
