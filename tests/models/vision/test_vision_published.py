"""Published encoders of pictures have as many parameters as transformers' and Megatron-Core's."""

import dataclasses

import pytest

from mjx.models.common.norm import NormConfig
from mjx.models.megatron import read_settings
from mjx.models.vision import PUBLISHED

_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
_DINO = {"image_size": 518, "patch_size": 14}
_GIANT = {"hidden_size": 1536, "num_hidden_layers": 40, "num_attention_heads": 24, "use_swiglu_ffn": True}
_INTERNVIT = {
    **{"hidden_size": 3200, "intermediate_size": 12800, "num_hidden_layers": 45, "num_attention_heads": 25},
    **{"norm_type": "rms_norm", "use_qk_norm": True, "attention_bias": False},
}
_SO400M = {"hidden_size": 1152, "num_hidden_layers": 27, "num_attention_heads": 16, "intermediate_size": 4304}
THEIRS = {
    "vit-base": ("ViT", {}),
    "vit-large": ("ViT", {**_LARGE, "intermediate_size": 4096}),
    "dinov2-small": ("Dinov2", {**_DINO, "hidden_size": 384, "num_attention_heads": 6}),
    "dinov2-base": ("Dinov2", _DINO),
    "dinov2-large": ("Dinov2", {**_DINO, **_LARGE}),
    "dinov2-giant": ("Dinov2", {**_DINO, **_GIANT}),
    "clip-large-336": (
        "CLIPVision",
        {**_LARGE, "intermediate_size": 4096, "image_size": 336, "patch_size": 14},
    ),
    "siglip-so400m-384": ("SiglipVision", {**_SO400M, "image_size": 384, "patch_size": 14}),
    "internvit-6b": ("InternVLVision", {**_INTERNVIT, "use_mean_pooling": True}),
    "internvit-300m": ("InternVLVision", {"attention_bias": True, "use_mean_pooling": True}),
}


@pytest.mark.parametrize("name", THEIRS)
def test_a_published_encoder_has_the_parameters_of_transformers_model(name):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    kind, fields = THEIRS[name]
    config = getattr(transformers, f"{kind}Config")(**fields)
    with torch.device("meta"):
        pooler = {"add_pooling_layer": False} if kind == "ViT" else {}
        model = getattr(transformers, f"{kind}Model")(config, **pooler)
    assert PUBLISHED[name].num_parameters() == sum(each.numel() for each in model.parameters())


@pytest.mark.parametrize(
    ("name", "layers", "hidden", "mlp", "others"),
    [
        ("radio", 32, 1280, 2 * 1280 * 5120 + 5120 + 1280, (768 + 8 + 128**2) * 1280),
        ("cradio-g", 40, 1536, 2 * 1536 * 6144 + 6144 + 1536, (768 + 8 + 128**2) * 1536),
        # A gate; biases of what is made of a patch, a hidden patch, and a norm behind the last layer.
        (
            *("radio-g", 40, 1536, 3 * 1536 * 4096 + 2 * 4096 + 1536),
            (3 * 14**2 + 5 + 128**2 + 1 + 1 + 2) * 1536,
        ),
    ],
)
def test_radio_has_the_parameters_counted_by_hand(name, layers, hidden, mlp, others):
    attention = 4 * hidden * (hidden + 1)
    layer = attention + mlp + 2 * 2 * hidden
    assert PUBLISHED[name].num_parameters() == layers * layer + others


SMALL = {"num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "patch_dim": 14}


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({"vision_model_type": "clip", "img_h": 336, "img_w": 336}, 174_720),
        ({"vision_model_type": "siglip", "img_h": 336, "img_w": 336}, 174_656),
        ({"vision_model_type": "radio", "img_h": 224, "img_w": 224, "add_class_token": False}, 1_501_824),
        ({"vision_model_type": "radio-g", "img_h": 224, "img_w": 224}, 1_186_752),
    ],
)
def test_small_encoders_have_the_parameters_that_megatrons_tests_count(arguments, count):
    family, config = read_settings({**SMALL, **arguments}, "args.json")
    assert family == "vision"
    assert config.num_parameters() == count


def llava(kind: str, *, language: dict, vision: dict, features: int):
    _, config = read_settings(
        {
            "language_transformer_config": {"num_layers": 3, **language},
            "language_vocab_size": language["vocab_size"],
            "language_max_sequence_length": 4096,
            "share_embeddings_and_output_weights": False,
            "vision_transformer_config": {"num_layers": 2, **vision},
            "vision_projection_config": {"ffn_hidden_size": features},
            **{"vision_model_type": kind, "img_h": 336, "img_w": 336, "patch_dim": 14},
        },
        "args.json",
    )
    # Transformer Engine's first layer has a norm of its own.
    return dataclasses.replace(config, projector=dataclasses.replace(config.projector, norm=NormConfig()))


WIDE = {"hidden_size": 128, "num_attention_heads": 8, "vocab_size": 2048}
NARROW = {"hidden_size": 64, "num_attention_heads": 4, "vocab_size": 8192}
HEADS = {"hidden_size": 64, "num_attention_heads": 4}


@pytest.mark.parametrize(
    ("kind", "language", "vision", "features", "count"),
    [
        ("clip", NARROW, {"hidden_size": 16, "num_attention_heads": 2}, 32, 1_488_736),
        ("siglip", WIDE, HEADS, 72, 1_832_456),
        ("radio-g", WIDE, HEADS, 72, 2_844_552),
    ],
)
def test_small_llavas_have_the_parameters_that_megatrons_tests_count(kind, language, vision, features, count):
    config = llava(kind, language=language, vision=vision, features=features)
    assert config.num_parameters() == count
