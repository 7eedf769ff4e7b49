"""Hugging Face's models that see: LLaVA, with the encoders and language models that the registry has."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models.common.parameter import parameters_of
from mjx.models.family import ModelConfig, abstract_model
from mjx.models.interop.architecture import ACTIVATIONS, UNQUANTIZED, WITHOUT_MEANING, Architecture
from mjx.models.interop.architectures import Part, fitting_architecture
from mjx.models.interop.config_map import ConfigMap, Constant, Entry, Fields, Key, Only, Theirs, shown
from mjx.models.interop.mixer_rows import norm_rows
from mjx.models.interop.name_map import NameMap, Row
from mjx.models.multimodal.config import MultimodalConfig

_WIDE, _NARROW = "mlp latent -> latent mlp", "embed mlp -> mlp embed"


@dataclasses.dataclass(frozen=True)
class FeatureLayer:
    """`vision_feature_layer`: the states that are seen, -1 of the last layer, -2 of that in front of it."""

    def names(self) -> Sequence[str]:
        return ("vision_feature_layer",)

    def ours(self, theirs: Theirs) -> Fields:
        layer = theirs.get("vision_feature_layer", -2)
        layers = (theirs.get("vision_config") or {}).get("num_hidden_layers")
        if type(layer) is not int or (type(layers) is not int and layer < 0):
            raise InputError(
                f'{theirs.where} has "vision_feature_layer": {shown(layer)}, which mjx does not compute; it '
                'should be one number, and "vision_config" should say its "num_hidden_layers"'
            )
        return {"vision_layers": layer if layer >= 0 else (layers or 0) + 1 + layer}

    def theirs(self, config: MultimodalConfig) -> dict[str, Any]:
        layers = config.vision.num_layers
        return {"vision_feature_layer": (config.vision_layers or layers) - layers - 1}


@dataclasses.dataclass(frozen=True)
class Pinpoints:
    """`image_grid_pinpoints`: heights and widths."""

    def names(self) -> Sequence[str]:
        return ("image_grid_pinpoints",)

    def ours(self, theirs: Theirs) -> Fields:
        found = theirs.get("image_grid_pinpoints") or _PINPOINTS
        if not isinstance(found, list) or not all(
            isinstance(one, list | tuple) and len(one) == 2 and all(type(side) is int for side in one)
            for one in found
        ):
            raise InputError(
                f'{theirs.where} has "image_grid_pinpoints": {shown(found)}; it should be a list of heights '
                "and widths in pixels"
            )
        return {"pinpoints": [list(one) for one in found]}

    def theirs(self, config: MultimodalConfig) -> dict[str, Any]:
        return {"image_grid_pinpoints": [list(one) for one in config.pinpoints]}


@dataclasses.dataclass(frozen=True)
class NormedFeatureLayer(FeatureLayer):
    """Where -1 is what the encoder itself gives, with its last norm."""

    def ours(self, theirs: Theirs) -> Fields:
        named = {**theirs, "vision_feature_layer": theirs.get("vision_feature_layer", -1)}
        if named["vision_feature_layer"] == -1:
            return {"vision_layers": None}
        return super().ours(Theirs(named, theirs.where))


@dataclasses.dataclass(frozen=True)
class Downsampling:
    """`downsample_ratio`: of each side; ours is how many patches become one."""

    def names(self) -> Sequence[str]:
        return ("downsample_ratio",)

    def ours(self, theirs: Theirs) -> Fields:
        ratio = theirs.get("downsample_ratio", 0.5)
        side = round(1 / ratio)
        if side * ratio != 1:
            raise InputError(
                f'{theirs.where} has "downsample_ratio": {shown(ratio)}; it should be one part of a whole '
                "number, such as 0.5"
            )
        return {"merged": side**2}

    def theirs(self, config: MultimodalConfig) -> dict[str, Any]:
        return {"downsample_ratio": config.merged**-0.5}


_PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
_PARTS = (
    UNQUANTIZED,
    Part("text_config", "language", "llama", ties=False),
    Part("vision_config", "vision", "clip_vision_model"),
    FeatureLayer(),
    Key(*("vision_feature_select_strategy", "learned_seen", "default"), {"default": False, "full": True}),
    Key("image_token_index", "image_token", 32000, also=("image_token_id",)),
    Key("projector_hidden_act", "projector.activation", "gelu", ACTIVATIONS),
    Key("multimodal_projector_bias", "projector.bias", default=True),
    Constant("projector.kind", "mlp"),
)
_INTERNVIT = "internvl_vision"
_INTERNVL = (
    UNQUANTIZED,
    Part("text_config", "language", "qwen2", ties=True),
    Part("vision_config", "vision", _INTERNVIT, fixed=True),
    NormedFeatureLayer(),
    Only("vision_feature_select_strategy", "default"),
    Downsampling(),
    Key("image_token_id", "image_token", 151667, also=("image_token_index",)),
    Key("projector_hidden_act", "projector.activation", "gelu", ACTIVATIONS),
    Constant("projector.kind", "mlp"),
    Constant("projector.bias", value=True),
    Constant("projector.norm.kind", "layernorm"),
    Constant("projector.norm.epsilon", 1e-5),
)
_WITHOUT_MEANING = (
    *(*WITHOUT_MEANING, "image_seq_length", "vocab_size", "ignore_index"),
    "use_image_newline_parameter",
)


def llava_names(config: MultimodalConfig, vision: str | None = None) -> NameMap:
    """Encoder (of their kind `vision`; None: any), projector and language model, each by its own table."""
    rows = [
        Row("linear_1.weight", "up.kernel", _WIDE),
        Row("linear_2.weight", "down.kernel", _NARROW),
    ]
    if config.projector.bias:
        rows += [Row("linear_1.bias", "up.bias"), Row("linear_2.bias", "down.bias")]
    if config.projector.norm is not None:
        rows += norm_rows(config.projector.norm, "layer_norm", "norm")
    projector = parameters_of(abstract_model(config))["projector"]
    around = [Row("image_newline", "newline")] if config.pinpoints else []
    whole = {name: leaf for name, leaf in parameters_of(abstract_model(config)).items() if name == "newline"}
    parts = {
        "": ("", NameMap(around, 0, lambda *_: None, whole)),
        "vision.": ("vision_tower.", part_names(config.vision, vision)),
        "projector.": ("multi_modal_projector.", NameMap(rows, 0, lambda *_: None, projector)),
        "language.": ("language_model.", part_names(config.language)),
    }
    return NameMap.joined(parts)


def part_names(part: ModelConfig, kind: str | None = None) -> NameMap:
    """The table of a part by itself; `kind`: as the architecture of this `model_type` has it."""
    return fitting_architecture(part, kind).name_map(part)


def canonical(config: MultimodalConfig, kind: str | None = None) -> MultimodalConfig:
    """One spelling for all configs of the same model, without what only training chooses."""
    language, vision = (
        fitting_architecture(part, of).canonical(part)
        for part, of in ((config.language, None), (config.vision, kind))
    )
    layers = config.vision_layers
    hidden = config.projector.features
    projector = dataclasses.replace(
        config.projector, features=None if hidden == config.language.hidden_size else hidden
    )
    return dataclasses.replace(
        config,
        language=language,
        vision=vision,
        vision_layers=layers,
        # Without learned tokens there is nothing to leave out.
        learned_seen=config.learned_seen and config.vision.learned_tokens > 0,
        projector=projector,
        dtype="auto",
    )


def _architecture(
    model_type: str, class_name: str, entries: Sequence[Entry], vision: str | None = None
) -> Architecture:
    return Architecture(
        model_type=model_type,
        class_name=class_name,
        config=ConfigMap(MultimodalConfig, entries, _WITHOUT_MEANING),
        name_map=functools.partial(llava_names, vision=vision),
        prefix="",
        canonical=functools.partial(canonical, kind=vision),
        aliases={
            r"vision_tower\.vision_model\.(.*)": r"vision_tower.\1",
            r"model\.vision_tower\.(?:vision_model\.)?(.*)": r"vision_tower.\1",
            r"model\.multi_modal_projector\.(.*)": r"multi_modal_projector.\1",
            r"model\.language_model\.(.*)": r"language_model.model.\1",
            r"model\.image_newline": "image_newline",
            r"lm_head\.weight": "language_model.lm_head.weight",
        },
    )


ARCHITECTURES = (
    _architecture("llava", "LlavaForConditionalGeneration", _PARTS),
    _architecture("llava_next", "LlavaNextForConditionalGeneration", (*_PARTS, Pinpoints())),
    _architecture("internvl", "InternVLForConditionalGeneration", _INTERNVL, _INTERNVIT),
)
