"""Pictures of one size are cut into patches by the model, which computes of them what it does of patches."""

import jax
import numpy as np
from flax import nnx

from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.pictures import patches_of
from mjx.models.vision import VisionConfig


def test_the_loss_of_images_is_that_of_their_patches():
    config = VisionConfig(
        **{
            "num_layers": 1,
            "hidden_size": 16,
            "image_size": (4, 6),
            "patch_size": 2,
            "position_grid": (3, 3),
        },
        **{"attention": AttentionConfig(num_heads=2), "mlp": MLPConfig(features=16), "classes": 3},
        registers=1,
    )
    model = config.build(nnx.Rngs(params=jax.random.key(0)))
    images = np.random.default_rng(0).standard_normal((2, 3, 4, 6)).astype(np.float32)
    patches = np.pad(patches_of(images, 2), ((0, 0), (config.learned_tokens, 0), (0, 0)))
    rest = {"labels": np.array([2, 0], np.int32), "loss_mask": np.ones(2, np.float32)}
    losses = [
        model.loss(batch, model.counts(batch))[0]
        for batch in ({"images": images, **rest}, {"patches": patches, **rest})
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)
