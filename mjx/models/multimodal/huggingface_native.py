"""Hugging Face's models that see pictures of any size and videos: Qwen2-VL and Qwen2.5-VL."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from mjx.errors import InputError
from mjx.models.common.parameter import parameters_of
from mjx.models.family import abstract_model
from mjx.models.interop.architecture import UNQUANTIZED, WITHOUT_MEANING, Architecture
from mjx.models.interop.architectures import Part
from mjx.models.interop.config_map import ConfigMap, Constant, Fields, Key, Theirs, shown
from mjx.models.interop.name_map import NameMap, Row
from mjx.models.multimodal.config import MultimodalConfig
from mjx.models.multimodal.huggingface import canonical, part_names

_WIDE, _NARROW = "mlp latent -> latent mlp", "embed mlp -> mlp embed"
_OWN = (
    *("text_config", "vision_config", "image_token_id", "video_token_id"),
    *("vision_start_token_id", "vision_end_token_id", "vision_token_id"),
)


@dataclasses.dataclass(frozen=True)
class Text(Part):
    """`text_config`; in older files its keys stand around `vision_config`."""

    def ours(self, theirs: Theirs) -> Fields:
        given = theirs.get(self.name)
        around = {key: value for key, value in theirs.items() if key not in _OWN}
        if given is None:
            inner = around
        elif isinstance(given, Mapping):
            odd = [k for k in around if k not in (*WITHOUT_MEANING, "tie_word_embeddings") and k not in given]
            if odd:
                raise InputError(
                    f"{theirs.where} has {', '.join(odd)} beside text_config, which mjx does not know for "
                    "this model"
                )
            tied = bool(theirs.get("tie_word_embeddings") or given.get("tie_word_embeddings"))
            inner = {**given, "tie_word_embeddings": tied}
        else:
            raise InputError(f'{theirs.where} has "{self.name}": {shown(given)}, which should be an object')
        inner = {**inner, "model_type": self.kind}
        return super().ours(Theirs({self.name: inner}, theirs.where))

    def theirs(self, config: MultimodalConfig) -> dict[str, Any]:
        written = super().theirs(config)
        written[self.name]["model_type"] = self.kind
        return {**written, "tie_word_embeddings": config.language.tie_embeddings}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoder(Part):
    """`vision_config`, which says what is behind the encoder too."""

    out: str
    """The key of the language model's features."""
    paced: bool
    """Whether it has `tokens_per_second`."""

    def ours(self, theirs: Theirs) -> Fields:
        given = theirs.get(self.name) or {}
        if not isinstance(given, Mapping):
            raise InputError(f'{theirs.where} has "{self.name}": {shown(given)}, which should be an object')
        kinds = (None, self.kind, self.kind.removesuffix("_vision"))
        if given.get("model_type") not in kinds:
            raise InputError(
                f'{theirs.where}, "{self.name}", has "model_type": {shown(given["model_type"])}, which '
                f"should be {self.kind}"
            )
        side = given.get("spatial_merge_size") or 2
        inner = {**given, "model_type": self.kind, "spatial_merge_size": side}
        fields = super().ours(Theirs({self.name: inner}, theirs.where))
        width = fields[self.field]["hidden_size"]
        fields |= {"merged": side**2, "projector.features": width * side**2}
        text = theirs.get("text_config") or theirs
        if given.get(self.out, text.get("hidden_size")) != text.get("hidden_size"):
            raise InputError(
                f'{theirs.where}, "{self.name}", has "{self.out}": {shown(given[self.out])}, which should be '
                f"the language model's hidden_size = {shown(text.get('hidden_size'))}"
            )
        if self.paced:
            fields["frame_pace"] = float(given.get("tokens_per_second", 4))
        return fields

    def theirs(self, config: MultimodalConfig) -> dict[str, Any]:
        written = super().theirs(config)
        written[self.name] |= {
            self.out: config.language.hidden_size,
            "spatial_merge_size": math.isqrt(config.merged),
        }
        if self.paced and config.frame_pace is not None:
            pace = config.frame_pace
            written[self.name]["tokens_per_second"] = int(pace) if pace == int(pace) else pace
        return written


def native_names(config: MultimodalConfig) -> NameMap:
    """`visual` with `merger`, and the language model's own names."""
    projector = parameters_of(abstract_model(config))["projector"]
    rows = [
        Row("ln_q.weight", "norm.scale"),
        Row("mlp.0.weight", "up.kernel", _WIDE),
        Row("mlp.0.bias", "up.bias"),
        Row("mlp.2.weight", "down.kernel", _NARROW),
        Row("mlp.2.bias", "down.bias"),
    ]
    if config.projector.norm is not None and config.projector.norm.biased:
        rows.append(Row("ln_q.bias", "norm.bias"))
    parts = {
        "vision.": ("visual.", part_names(config.vision)),
        "projector.": ("visual.merger.", NameMap(rows, 0, lambda *_: None, projector)),
        "language.": ("", part_names(config.language)),
    }
    return NameMap.joined(parts)


def _architecture(kind: str, class_name: str, *, out: str, norm: str, paced: bool) -> Architecture:
    entries = (
        UNQUANTIZED,
        Text("text_config", "language", f"{kind}_text"),
        Encoder("vision_config", "vision", f"{kind}_vision", out=out, paced=paced),
        Key("image_token_id", "image_token", 151_655),
        Key("video_token_id", "video_token", 151_656),
        *(Constant("projector.kind", "mlp"), Constant("projector.norm_of", "patch")),
        *(Constant("projector.norm.kind", norm), Constant("projector.norm.epsilon", 1e-6)),
    )
    return Architecture(
        model_type=kind,
        class_name=class_name,
        # What stands around text_config, it says.
        config=ConfigMap(MultimodalConfig, entries, closed=False),
        name_map=native_names,
        prefix="",
        canonical=canonical,
        aliases={
            r"model\.visual\.(.*)": r"visual.\1",
            r"model\.language_model\.(.*)": r"model.\1",
        },
    )


NATIVE = (
    _architecture(
        *("qwen2_vl", "Qwen2VLForConditionalGeneration"), out="hidden_size", norm="layernorm", paced=False
    ),
    _architecture(
        *("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration"),
        out="out_hidden_size",
        norm="rmsnorm",
        paced=True,
    ),
)
