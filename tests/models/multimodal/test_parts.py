"""What a run chooses for encoder, projector and language model apart from each other."""

import dataclasses

import jax
import numpy as np
import pytest
from families.multimodal import tiny

from mjx.data.images.marks import TILE_TAGS, PictureMarks
from mjx.errors import InputError
from mjx.models.common.parameter import bind, parameters_of
from mjx.models.common.pictures import Tiles
from mjx.models.family import abstract_model
from mjx.models.multimodal.layout import layout_of
from mjx.sharding import MeshConfig, build_mesh
from mjx.training.groups import GroupConfig
from mjx.training.optimizer import OptimizerConfig
from mjx.training.schedule import ScheduleConfig
from mjx.training.trainer import Trainer
from mjx.trees import flatten

LLAVA, MERGED, NEXT = tiny()[:3]


def test_what_is_frozen_keeps_its_bits_and_has_no_moments():
    trainer = Trainer(
        NEXT.config,
        steps=2,
        batch=NEXT.arrays(),
        mesh=build_mesh(MeshConfig(), jax.devices()[:1]),
        optimizer=OptimizerConfig(
            groups={"vision.*": GroupConfig(frozen=True), "language.*": GroupConfig(frozen=True)}
        ),
        schedule=ScheduleConfig(learning_rate=1e-2, warmup_steps=0),
    )
    state = trainer.init(0)
    before = {path: np.asarray(leaf) for path, leaf in flatten(state.parameters).items()}
    for seed in range(2):
        state, _ = trainer.step(state, NEXT.batch(seed))
    after = flatten(state.parameters)
    moved = {path for path, leaf in before.items() if not np.array_equal(leaf, np.asarray(after[path]))}
    assert moved == {path for path in before if path == "newline" or path.startswith("projector.")}
    numbers = sum(leaf.size for path, leaf in before.items() if path in moved)
    held = sum(leaf.size for leaf in jax.tree.leaves(state.optimizer) if leaf.ndim)
    assert held == 2 * numbers


@pytest.fixture(scope="module")
def recomputed():
    """The program of a gradient, as text, by what is computed again."""
    batch = LLAVA.batch(0)
    parameters = parameters_of(abstract_model(LLAVA.config))

    def of(**choices):
        whole = {name: value for name, value in choices.items() if name == "remat"}
        parts = {
            part: dataclasses.replace(getattr(LLAVA.config, part), remat=choices[part])
            for part in ("vision", "language")
            if part in choices
        }
        definition = abstract_model(dataclasses.replace(LLAVA.config, **whole, **parts))

        def loss(parameters):
            module = bind(definition, parameters)
            return module.loss(batch, module.counts(batch))[0]

        gradient = jax.grad(loss)
        return str(jax.make_jaxpr(gradient)(parameters))

    return of


def test_encoder_and_language_model_recompute_apart(recomputed):
    programs = {
        name: recomputed(**choices)
        for name, choices in {
            "none": {},
            "vision": {"vision": "full"},
            "language": {"language": "full"},
            "both": {"vision": "full", "language": "full"},
            "whole": {"remat": "full"},
        }.items()
    }
    products = {name: program.count("dot_general") for name, program in programs.items()}
    assert products["none"] < products["vision"] < products["both"]
    assert products["none"] < products["language"] < products["both"]
    assert programs["vision"] != programs["language"]
    assert programs["whole"] == programs["both"]


def test_places_of_pictures_of_448_pixels_as_megatron_counts_them():
    vision = dataclasses.replace(LLAVA.config.vision, image_size=(448, 448), patch_size=14)
    config = dataclasses.replace(LLAVA.config, vision=vision)
    picture = np.zeros((3, 448, 448), np.float32)
    assert layout_of(config, picture).counts == (1024,)
    shuffled = dataclasses.replace(config, merged=4)
    assert layout_of(shuffled, picture).counts == (256,)
    tiled = layout_of(shuffled, Tiles(np.stack([picture] * 3), (900, 400))).counts
    assert tiled == (256, 256, 256)
    # Six characters are the six tokens of a tag such as nemotron5's.
    tags = dataclasses.replace(TILE_TAGS["two digits"], tile="<t{}>#", whole="<t_wh>")
    assert len(PictureMarks(image="i", tags=tags).of((256,))) == 262
    assert len(PictureMarks(image="i", tags=tags).of(tiled)) == 3 * 262


def test_pinpoints_join_single_patches_only():
    with pytest.raises(InputError, match=r"set model\.merged = 1"):
        dataclasses.replace(MERGED.config, pinpoints=((14, 28),))
