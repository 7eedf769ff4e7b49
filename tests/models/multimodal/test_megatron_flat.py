"""The flat arguments of Megatron-LM's multimodal scripts."""

import dataclasses
import re

import numpy as np
import pytest

from mjx.data.images.marks import TILE_TAGS, PictureMarks
from mjx.errors import InputError
from mjx.models.megatron import read_settings
from mjx.models.multimodal.layout import layout_of
from mjx.models.vision import PUBLISHED
from mjx.run.megatron_recipe import make_recipe

SCRIPT = {
    **{"language_model_type": "mistral_7b", "num_layers": 2, "hidden_size": 64, "num_attention_heads": 4},
    **{"vocab_size": 100, "normalization": "RMSNorm", "position_embedding_type": "rope", "swiglu": True},
    **{"disable_bias_linear": True, "untie_embeddings_and_output_weights": True, "patch_dim": 14},
    **{"img_h": 448, "img_w": 448, "disable_vision_class_token": True, "max_position_embeddings": 4096},
}


def config_of(**more):
    family, config = read_settings({**SCRIPT, **more}, "args.sh")
    assert family == "multimodal"
    return config


@pytest.mark.parametrize("kind", ["clip", "internvit300M"])
@pytest.mark.parametrize(("shuffled", "places"), [(False, 1024), (True, 256)])
def test_a_picture_takes_as_many_places_as_megatron_counts(kind, shuffled, places):
    config = config_of(vision_model_type=kind, pixel_shuffle=shuffled)
    assert layout_of(config, np.zeros((3, 448, 448), np.float32)).counts == (places,)


def test_a_class_token_takes_a_place_unless_it_is_disabled():
    config = config_of(disable_vision_class_token=False, img_h=336, img_w=336)
    assert layout_of(config, np.zeros((3, 336, 336), np.float32)).counts == (577,)


def test_a_tile_with_its_tag_of_six_tokens_takes_262():
    marks = PictureMarks(image="@", tags=TILE_TAGS["two digits"])
    counts = layout_of(config_of(pixel_shuffle=True), np.zeros((3, 448, 448), np.float32)).counts
    text = marks.of([*counts, *counts])
    first = text[: text.index("<", 1)]
    assert len(re.findall(r"[a-z]+|.", first)) == 262


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("clip", "clip-large-336"), ("internvit300M", "internvit-300m"), ("radio", "radio")),
        *(("radio-g", "radio-g"), ("internvit", "internvit-6b"), ("cradio-g", "cradio-g")),
    ],
)
def test_the_encoder_is_the_published_one(kind, name):
    known = PUBLISHED[name]
    if kind == "clip":  # whose last norm Megatron leaves out
        known = dataclasses.replace(known, last_norm=None)
    height, width = known.image_size
    sizes = {"img_h": height, "img_w": width, "patch_dim": known.patch_size}
    vision = config_of(vision_model_type=kind, **sizes).vision
    assert vision.num_parameters() == known.num_parameters()
    assert (vision.mlp, vision.position_grid) == (known.mlp, known.position_grid)


def test_the_image_token_stands_behind_the_vocabulary_and_may_be_said():
    assert (config_of().image_token, config_of().language.vocab_size) == (100, 101)
    assert config_of(image_token_index=7).image_token == 7


def test_a_script_becomes_a_recipe_that_freezes_what_it_says():
    run = {
        "decoder_seq_length": 1024,
        "seq_length": 576,
        "train_iters": 10,
        "global_batch_size": 8,
        "lr": 1e-4,
    }
    recipe = make_recipe({**SCRIPT, **run, "freeze_LM": True, "use_tiling": True}, {}, "args.sh")
    assert recipe.tree["model"]["language"]["family"] == "gpt"
    assert recipe.tree["data"]["sequence_length"] == 1024
    assert recipe.tree["optimizer"]["groups"] == {"language.*": {"frozen": True}}
    assert "use_tiling" in recipe.left
    assert "num_layers" not in recipe.left


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"language_model_type": "hf://a/b"}, "language_model_type.*known are"),
        ({"vision_model_type": "pixtral-vit"}, "vision_model_type.*known are"),
        ({"dynamic_resolution": True}, "asks for dynamic_resolution"),
    ],
)
def test_what_is_not_computed_is_refused(more, said):
    with pytest.raises(InputError, match=said):
        config_of(**more)
