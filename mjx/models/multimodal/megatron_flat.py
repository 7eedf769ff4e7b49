"""The flat arguments of Megatron-LM's multimodal scripts, as those that `LLaVAModel` is made with."""

from collections.abc import Mapping
from typing import Any

from mjx.errors import InputError
from mjx.models.interop.config_map import Theirs, shown

FLAT = (
    *(
        "language_model_type",
        "vision_model_type",
        "disable_vision_class_token",
        "img_h",
        "img_w",
        "patch_dim",
    ),
    *("class_token_len", "pixel_shuffle", "image_token_index", "special_tokens", "image_tag_type"),
    *("recompute_vision", "vision_projection_type", "decoder_seq_length"),
)
"""Those that decide something of the model, besides the language model's own."""
_OTHERS = ("seq_length", "encoder_seq_length", "program")
"""What says nothing of the language model: the rows of the encoder, and a name."""
_REFUSED = (
    *("dynamic_resolution", "conv_merging", "sound_model_type", "use_vision_backbone_fp8_arch"),
    *("radio_disable_cpe", "separate_video_embedder"),
)
_SHARED = (
    *(
        "init_method_std",
        "attention_dropout",
        "hidden_dropout",
        "norm_epsilon",
        "bf16",
        "fp16",
        "params_dtype",
    ),
    *("recompute_granularity", "tensor_model_parallel_size"),
)
"""What a script says once for the language model and the encoder."""

_SWIGLU = {"swiglu": True, "add_bias_linear": False, "apply_layernorm_1p": False}
_QWEN = {**_SWIGLU, "add_qkv_bias": True}
_SQUARED = {"swiglu": False, "squared_relu": True, "add_bias_linear": False}
_HYBRID = {**_SQUARED, "apply_layernorm_1p": False}
_LANGUAGES: dict[str, tuple[int, dict[str, Any]]] = {
    "llama3_8b": (14336, _SWIGLU),
    "llama3.1_8b": (14336, _SWIGLU),
    "llama3.1_70B": (28672, _SWIGLU),
    "llama3.2_1b": (8192, _SWIGLU),
    "llama_nemotron_8b": (14336, _SWIGLU),
    "mistral_7b": (14336, _SWIGLU),
    "yi-34b": (20480, _QWEN),
    "qwen2.0_72B": (29568, _QWEN),
    "qwen2.5_7B": (18944, _QWEN),
    "qwen2.5_72B": (29568, _QWEN),
    "nemotron5-8b": (21504, _SQUARED),
    "nemotron5-hybrid-8b": (21504, _HYBRID),
    "nemotron5-hybrid-12b": (20480, _HYBRID),
    "nemotron5-hybrid-56b": (32768, _HYBRID),
}
"""`language_model_type` → features of the MLPs, and what else it says whatever the other arguments do."""

_SAME = "as the language model"
_PROJECTIONS: dict[str, tuple[int, str, bool, str | None]] = {
    "llama3_8b": (14336, "gelu", False, _SAME),
    "llama3.1_8b": (4096, "gelu", True, "LayerNorm"),
    "llama3.2_1b": (2048, "gelu", False, "LayerNorm"),
    "llama_nemotron_8b": (14336, "gelu", True, "LayerNorm"),
    "mistral_7b": (14336, "gelu", False, None),
    "yi-34b": (20480, "gelu", False, "LayerNorm"),
    "qwen2.0_72B": (29568, "gelu", False, "LayerNorm"),
    "qwen2.5_7B": (3584, "gelu", False, _SAME),
    "qwen2.5_72B": (29568, "gelu", False, "LayerNorm"),
    "nemotron5-8b": (21504, "squared_relu", False, _SAME),
    "nemotron5-hybrid-8b": (21504, "squared_relu", False, _SAME),
    "nemotron5-hybrid-12b": (20480, "squared_relu", False, _SAME),
    "nemotron5-hybrid-56b": (32768, "squared_relu", False, _SAME),
}
"""The same → features of the projection, its activation, whether it has biases, its norm."""


def _encoder(
    layers: int, hidden: int, heads: int, features: int, function: str, **others: Any
) -> dict[str, Any]:
    return {
        **{"num_layers": layers, "hidden_size": hidden, "num_attention_heads": heads},
        **{"ffn_hidden_size": features, "activation_func": function, "gated_linear_unit": False},
        **{"add_bias_linear": True, "add_qkv_bias": True, "normalization": "LayerNorm"},
        **others,
    }


_E6 = {"norm_epsilon": 1e-6}
_ENCODERS: dict[str, dict[str, Any]] = {
    "clip": _encoder(24, 1024, 16, 4096, "quick_gelu"),
    "siglip": _encoder(27, 1152, 16, 4304, "fast_gelu", **_E6),
    "internvit": _encoder(
        *(45, 3200, 25, 12800, "gelu"),
        **{
            **_E6,
            "normalization": "RMSNorm",
            "add_qkv_bias": False,
            "qk_layernorm": True,
            "kv_channels": 128,
        },
    ),
    "internvit300M": _encoder(24, 1024, 16, 4096, "gelu", **_E6),
    "radio": _encoder(32, 1280, 16, 5120, "fast_gelu", **_E6),
    "radio-g": _encoder(40, 1536, 24, 4096, "silu", **_E6, gated_linear_unit=True),
    "cradio-g": _encoder(40, 1536, 24, 6144, "fast_gelu", **_E6),
}
"""`vision_model_type` → the encoder's settings; without the heads of zeros that Megatron-LM adds."""
LAYERS_OF_ITS_OWN: dict[str, dict[str, Any]] = {
    "internvit": {"layer_scale": 1.0, "attention": {"qk_norm_over": "all_heads", "qkv_bias": False}},
    "internvit300M": {"layer_scale": 1.0},
}
"""What layers of the scripts' own have besides: factors on what sub-layers give, norms over all heads."""


def is_flat(theirs: Mapping[str, Any]) -> bool:
    """Whether these are a script's arguments of a model that sees."""
    return theirs.get("language_model_type") is not None


def unfolded(theirs: Theirs) -> Theirs:
    """`LLaVAModel`'s arguments, for a script's; others as they are.

    The scripts' tokenizer puts its special tokens behind the vocabulary, and among them the image token.

    Raises:
        InputError: they describe a model that mjx does not have.
    """
    if not is_flat(theirs):
        return theirs
    kind, seen = theirs["language_model_type"], theirs.get("vision_model_type") or "clip"
    for name, given, known in (
        ("language_model_type", kind, _LANGUAGES),
        ("vision_model_type", seen, _ENCODERS),
    ):
        if given not in known:
            raise InputError(
                f'{theirs.where} has "{name}": {shown(given)}, which mjx does not compute; known are '
                f"{', '.join(known)}"
            )
    if asked := [name for name in _REFUSED if theirs.get(name)]:
        raise InputError(f"{theirs.where} asks for {', '.join(asked)}, which mjx does not compute")
    features, said = _LANGUAGES[kind]
    language = {key: value for key, value in theirs.items() if key not in (*FLAT, *_OTHERS)}
    language |= {**said, "ffn_hidden_size": features}
    token = _image_token(theirs, language)
    vision = {key: theirs[key] for key in _SHARED if theirs.get(key) is not None}
    if not theirs.get("recompute_vision"):
        vision.pop("recompute_granularity", None)
    features, function, biased, norm = _PROJECTIONS[kind]
    return Theirs(
        {
            "language_transformer_config": language,
            "vision_transformer_config": vision | _ENCODERS[seen],
            "vision_projection_config": {
                **{"ffn_hidden_size": features, "activation_func": function, "add_bias_linear": biased},
                "input_norm": theirs.get("normalization") or "LayerNorm" if norm == _SAME else norm,
                "norm_epsilon": theirs.get("norm_epsilon") or 1e-5,
            },
            "vision_projection_type": theirs.get("vision_projection_type"),
            "vision_model_type": seen,
            "img_h": theirs.get("img_h"),
            "img_w": theirs.get("img_w"),
            "patch_dim": theirs.get("patch_dim"),
            "class_token_len": theirs.get("class_token_len"),
            "drop_vision_class_token": bool(theirs.get("disable_vision_class_token")),
            "pixel_shuffle": theirs.get("pixel_shuffle"),
            "image_token_index": token,
        },
        theirs.where,
    )


def _image_token(theirs: Mapping[str, Any], language: dict[str, Any]) -> int:
    """Its id; makes room for it where it is behind the vocabulary that the arguments count."""
    if isinstance(given := theirs.get("image_token_index"), int) and given >= 0:
        return given
    special = theirs.get("special_tokens") or ["<image>"]
    special = list(special) if isinstance(special, list | tuple) else [special]
    at = special.index("<image>") if "<image>" in special else 0
    tags = 2 if theirs.get("image_tag_type") else 0
    count = language.get("vocab_size")
    if not isinstance(count, int):  # rows of a table that has room for them
        return (language.get("padded_vocab_size") or len(special)) - len(special) + at
    language["vocab_size"] = count + len(special) + tags
    return count + at
