"""What pictures take of a table of positions, against torch's operations, which RADIO is made of."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx.models.common.pictures import whole_grid
from mjx.models.vision.positions import PositionTable, cropped_weights, weights

ROWS, COLUMNS = 6, 7
TABLE = np.random.RandomState(0).randn(ROWS, COLUMNS, 3).astype(np.float32)


def taken(of_rows, of_columns, table=TABLE):
    return np.einsum("...r,...c,rcf->...f", of_rows, of_columns, table)


def expected(torch, view, size, *, corners):
    """As Megatron-Core's `RADIOViTModel`, step by step."""
    table = torch.from_numpy(TABLE).permute(2, 0, 1)[None]
    if view == "square":
        side = max(size)
        whole = torch.nn.functional.interpolate(
            table, size=(side, side), mode="bilinear", align_corners=corners
        )
        found = whole[..., : size[0], : size[1]]
    else:
        if view == "aspect":
            height, width = size
            rows = ROWS if height >= width else min(ROWS, math.ceil(ROWS * height / width))
            columns = COLUMNS if width >= height else min(COLUMNS, math.ceil(COLUMNS * width / height))
            table = table[..., :rows, :columns]
        found = torch.nn.functional.interpolate(table, size=size, mode="bilinear", align_corners=corners)
    return found[0].permute(1, 2, 0).reshape(-1, 3).numpy()


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("view", ["whole", "square", "aspect"])
def test_views_are_torchs(view, corners):
    torch = pytest.importorskip("torch")
    table = PositionTable(ROWS, COLUMNS, "bilinear-corners" if corners else "bilinear", view)
    for size in [(4, 9), (9, 4), (5, 5), (1, 3), (12, 11)]:
        found = taken(*weights(table, jnp.asarray(whole_grid(*size, 0))))[0]
        wanted = expected(torch, view, size, corners=corners)
        np.testing.assert_allclose(found, wanted, atol=2e-6, err_msg=str(size))


def test_crops_are_straight_parts_of_the_table_drawn_for_every_picture():
    """A table that says where it is shows what was drawn."""
    places = np.stack(np.meshgrid(np.arange(ROWS), np.arange(COLUMNS), indexing="ij"), -1).astype(np.float32)
    table = PositionTable(ROWS, COLUMNS, "bilinear", "square")
    grid = jnp.asarray(np.concatenate([whole_grid(4, 5, 0), whole_grid(4, 5, 0)], axis=1))
    segments = jnp.asarray(np.repeat([[1, 2]], 20, axis=1).reshape(1, 40))
    drawn = []
    for seed in range(30):
        found = taken(*cropped_weights(table, grid, segments, jax.random.key(seed)), places)[0]
        for picture in (found[:20].reshape(4, 5, 2), found[20:].reshape(4, 5, 2)):
            step = picture[1, 1] - picture[0, 0]
            line = picture[0, 0] + np.stack(np.meshgrid(range(4), range(5), indexing="ij"), -1) * step
            np.testing.assert_allclose(picture, line, atol=1e-5)
            drawn.append(step * [3, 4] / [ROWS - 1, COLUMNS - 1])
    extent = np.array(drawn)
    area, shape = extent.prod(axis=1), extent[:, 1] / extent[:, 0]
    assert (extent <= 1 + 1e-6).all()
    assert 0.09 < area.min() < 0.25
    assert 0.7 < area.max() <= 1
    # A side that would be beyond the table ends with it.
    assert 9 / 16 - 1e-5 <= shape.min() < 0.75
    assert 1.3 < shape.max() <= 16 / 9 + 1e-5
    assert len(np.unique(extent.round(4), axis=0)) == len(extent)


def test_a_row_that_is_one_picture_has_one_crop():
    table = PositionTable(ROWS, COLUMNS, "bilinear", "square")
    places = np.ones((ROWS, COLUMNS, 1), np.float32)
    of_rows, of_columns = cropped_weights(table, jnp.asarray(whole_grid(3, 3, 2)), None, jax.random.key(0))
    np.testing.assert_allclose(taken(of_rows, of_columns, places), 1, atol=1e-6)
