"""Hugging Face's models that see: LLaVA, with the encoders and language models that the registry has."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models.common.parameter import parameters_of
from mjx.models.family import ModelConfig, abstract_model
from mjx.models.interop.architecture import ACTIVATIONS, UNQUANTIZED, WITHOUT_MEANING, Architecture
from mjx.models.interop.architectures import find_architecture, fitting_architecture
from mjx.models.interop.config_map import ConfigMap, Constant, Fields, Key, Theirs, shown
from mjx.models.interop.name_map import NameMap, Row
from mjx.models.multimodal.config import MultimodalConfig
from mjx.parse import to_tree

_WIDE, _NARROW = "mlp latent -> latent mlp", "embed mlp -> mlp embed"


@dataclasses.dataclass(frozen=True)
class Part:
    """A config of another model inside of theirs."""

    name: str
    field: str
    kind: str
    """Their `model_type` where it says none."""

    def names(self) -> Sequence[str]:
        return (self.name,)

    def ours(self, theirs: Theirs) -> Fields:
        given = theirs.get(self.name) or {}
        if not isinstance(given, Mapping):
            raise InputError(f'{theirs.where} has "{self.name}": {shown(given)}, which should be an object')
        inner = {"model_type": self.kind, **given}
        inner["architectures"] = [_class_of(inner["model_type"])]
        family, architecture = find_architecture(inner)
        config = architecture.config.to_ours(inner, f'{theirs.where}, "{self.name}"')
        return {self.field: {**to_tree(config), "family": family}}

    def theirs(self, config: MultimodalConfig) -> dict[str, Any]:
        part: ModelConfig = getattr(config, self.field)
        architecture = fitting_architecture(part)
        written = architecture.config.to_theirs(part)
        return {self.name: {**written, "model_type": architecture.model_type}}


def _class_of(model_type: str) -> str:
    """The class that a part of this kind has: that which continues text, or the encoder alone."""
    from mjx.models.interop.architectures import architectures

    known = [a for those in architectures().values() for a in those if a.model_type == model_type]
    if not known:
        kinds = sorted({a.model_type for those in architectures().values() for a in those})
        raise InputError(f'"model_type": {model_type!r} is not known; mjx knows {", ".join(kinds)}')
    return next((a for a in known if a.class_name.endswith(("CausalLM", "VisionModel"))), known[0]).class_name


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


_LLAVA = ConfigMap(
    MultimodalConfig,
    (
        UNQUANTIZED,
        Part("text_config", "language", "llama"),
        Part("vision_config", "vision", "clip_vision_model"),
        FeatureLayer(),
        Key(*("vision_feature_select_strategy", "learned_seen", "default"), {"default": False, "full": True}),
        Key("image_token_index", "image_token", 32000, also=("image_token_id",)),
        Key("projector_hidden_act", "projector.activation", "gelu", ACTIVATIONS),
        Key("multimodal_projector_bias", "projector.bias", default=True),
        Constant("projector.kind", "mlp"),
    ),
    (*WITHOUT_MEANING, "image_seq_length", "vocab_size", "ignore_index", "tie_word_embeddings"),
)


def llava_names(config: MultimodalConfig) -> NameMap:
    """Encoder, projector and language model, each by its own table."""
    rows = [
        Row("linear_1.weight", "up.kernel", _WIDE),
        Row("linear_2.weight", "down.kernel", _NARROW),
    ]
    if config.projector.bias:
        rows += [Row("linear_1.bias", "up.bias"), Row("linear_2.bias", "down.bias")]
    projector = parameters_of(abstract_model(config))["projector"]
    parts = {
        "vision.": ("vision_tower.", part_names(config.vision)),
        "projector.": ("multi_modal_projector.", NameMap(rows, 0, lambda *_: None, projector)),
        "language.": ("language_model.", part_names(config.language)),
    }
    return NameMap.joined(parts)


def part_names(part: ModelConfig) -> NameMap:
    """The table of a part by itself."""
    return fitting_architecture(part).name_map(part)


def canonical(config: MultimodalConfig) -> MultimodalConfig:
    """One spelling for all configs of the same model, without what only training chooses."""
    language, vision = (
        fitting_architecture(part).canonical(part) for part in (config.language, config.vision)
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


ARCHITECTURES = (
    Architecture(
        model_type="llava",
        class_name="LlavaForConditionalGeneration",
        config=_LLAVA,
        name_map=llava_names,
        prefix="",
        canonical=canonical,
        aliases={
            r"vision_tower\.vision_model\.(.*)": r"vision_tower.\1",
            r"model\.vision_tower\.(?:vision_model\.)?(.*)": r"vision_tower.\1",
            r"model\.multi_modal_projector\.(.*)": r"multi_modal_projector.\1",
            r"model\.language_model\.(.*)": r"language_model.model.\1",
            r"lm_head\.weight": "language_model.lm_head.weight",
        },
    ),
)
