"""Hugging Face's models of two towers: CLIP, and SigLIP with the models of SigLIP 2 that have its classes."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models.common.parameter import parameters_of
from mjx.models.dual_encoder.config import DualEncoderConfig
from mjx.models.family import abstract_model
from mjx.models.interop.architecture import UNQUANTIZED, WITHOUT_MEANING, Architecture
from mjx.models.interop.architectures import Part
from mjx.models.interop.canonical import training_defaults
from mjx.models.interop.config_map import ConfigMap, Constant, Fields, Key, Theirs, shown
from mjx.models.interop.name_map import NameMap, Row

_PROJECTION = "latent embed -> embed latent"
_NO_END = 2
"""The `eos_token_id` of CLIP's first configs, which is no end: the largest id of a row is."""


@dataclasses.dataclass(frozen=True)
class _End:
    """CLIP's `eos_token_id`, in its text's config."""

    def names(self) -> Sequence[str]:
        return ("text_config", "text_config_dict")

    def ours(self, theirs: Theirs) -> Fields:
        text = theirs.get("text_config_dict")
        text = (theirs.get("text_config") if text is None else text) or {}
        end = text.get("eos_token_id", 49407)
        if type(end) is not int:
            raise InputError(
                f'{theirs.where} has "eos_token_id": {shown(end)} in "text_config", which should be a number'
            )
        return {"end_token": None if end == _NO_END else end}

    def theirs(self, config: DualEncoderConfig) -> dict[str, Any]:
        return {}


@dataclasses.dataclass(frozen=True)
class _TextPart(Part):
    """A text's config, with what it says of the tokens that stand for a row, or fill it."""

    def theirs(self, config: DualEncoderConfig) -> dict[str, Any]:
        said = super().theirs(config)
        if config.pad_token is not None:
            said[self.name]["pad_token_id"] = config.pad_token
        if config.text_pooling == "token":
            end = config.end_token
            # Theirs reads any other number as the token.
            said[self.name]["eos_token_id"] = _NO_END if end is None else None if end == _NO_END else end
        if config.text_projection is not None:
            name = "projection_size" if config.text_projection.bias else "projection_dim"
            said[self.name][name] = config.text_projection.features
        return said


@dataclasses.dataclass(frozen=True)
class _SigLIPText:
    """What SigLIP's text config says beside its tower: `projection_size` and `pad_token_id`."""

    def names(self) -> Sequence[str]:
        return ("text_config",)

    def ours(self, theirs: Theirs) -> Fields:
        text = theirs.get("text_config") or {}
        features, pad = text.get("projection_size"), text.get("pad_token_id", 1)
        if type(pad) is not int:
            raise InputError(
                f'{theirs.where} has "pad_token_id": {shown(pad)} in "text_config", which should be a number'
            )
        return {
            "text_projection.features": text.get("hidden_size", 768) if features is None else features,
            "text_projection.bias": True,
            "pad_token": pad,
        }

    def theirs(self, config: DualEncoderConfig) -> dict[str, Any]:
        return {}


_CLIP_PARTS = (
    _TextPart("text_config", "text", "clip_text_model", fixed=True, overruled_by="text_config_dict"),
    Part("vision_config", "vision", "clip_vision_model", fixed=True, overruled_by="vision_config_dict"),
)
_SIGLIP_PARTS = (
    _TextPart("text_config", "text", "siglip_text_model", fixed=True),
    Part("vision_config", "vision", "siglip_vision_model", fixed=True),
)
CLIP = ConfigMap(
    DualEncoderConfig,
    (
        UNQUANTIZED,
        *_CLIP_PARTS,
        _End(),
        Key("projection_dim", ("vision_projection.features", "text_projection.features"), 512),
        Constant("vision_projection.bias", value=False),
        Constant("text_projection.bias", value=False),
        Constant("text_pooling", "token"),
        Key("logit_scale_init_value", "logit_scale", 2.6592),
        Constant("loss", "softmax"),
        Constant("logit_bias", None),
    ),
    (*WITHOUT_MEANING, "initializer_factor"),
)
SIGLIP = ConfigMap(
    DualEncoderConfig,
    (
        UNQUANTIZED,
        *_SIGLIP_PARTS,
        _SigLIPText(),
        Constant("vision_projection", None),
        Constant("text_pooling", "last"),
        Constant("loss", "sigmoid"),
        Constant("logit_scale", 2.302585092994046),
        Constant("logit_bias", -10.0),
    ),
    (*WITHOUT_MEANING, "initializer_factor"),
)


def clip_names(config: DualEncoderConfig) -> NameMap:
    """Both towers by their own tables, a projection each, and the scale."""
    rows = {
        "vision_projection.": ("visual_projection.", Row("weight", "kernel", _PROJECTION)),
        "text_projection.": ("text_projection.", Row("weight", "kernel", _PROJECTION)),
        "": ("", Row("logit_scale", "logit_scale", " -> 1")),
    }
    return _names(config, _CLIP_PARTS, {ours: (theirs, [row]) for ours, (theirs, row) in rows.items()})


def siglip_names(config: DualEncoderConfig) -> NameMap:
    """Both towers by their own tables; the layer behind that of texts, and scale and bias."""
    head = [Row("weight", "kernel", _PROJECTION), Row("bias", "bias")]
    numbers = [Row("logit_scale", "logit_scale"), Row("logit_bias", "logit_bias")]
    return _names(config, _SIGLIP_PARTS, {"text_projection.": ("text_model.head.", head), "": ("", numbers)})


def _names(
    config: DualEncoderConfig, parts: tuple[Part, Part], rows: dict[str, tuple[str, list[Row]]]
) -> NameMap:
    """The towers' tables, and `rows` of what is around them: what paths begin with → what tensors do."""
    shapes = parameters_of(abstract_model(config))
    tables = {}
    for part in parts:
        tower = getattr(config, part.field)
        tables[f"{part.field}."] = (f"{part.field}_model.", part.architecture(tower).name_map(tower))
    for ours, (theirs, of_part) in rows.items():
        own = shapes[ours[:-1]] if ours else {name: shapes[name] for name in shapes if "logit" in name}
        tables[ours] = (theirs, NameMap(of_part, 0, lambda *_: None, own))
    return NameMap.joined(tables)


def _canonical(config: DualEncoderConfig, parts: tuple[Part, Part]) -> DualEncoderConfig:
    """One spelling for all configs of the same model, without what only training chooses."""
    towers = {
        part.field: part.architecture(getattr(config, part.field)).canonical(getattr(config, part.field))
        for part in parts
    }
    # What numbers begin as is no matter once they are there.
    bias = None if config.logit_bias is None else 0.0
    begun = {"logit_scale": 0.0, "logit_bias": bias}
    return dataclasses.replace(config, **towers, **begun, **training_defaults(DualEncoderConfig))


ARCHITECTURES = (
    Architecture(
        model_type="clip",
        class_name="CLIPModel",
        config=CLIP,
        name_map=clip_names,
        prefix="",
        canonical=lambda config: _canonical(config, _CLIP_PARTS),
    ),
    Architecture(
        model_type="siglip",
        class_name="SiglipModel",
        config=SIGLIP,
        name_map=siglip_names,
        prefix="",
        canonical=lambda config: _canonical(config, _SIGLIP_PARTS),
    ),
)
