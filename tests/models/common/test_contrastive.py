"""InfoNCE over the global batch: against sentence-transformers' formula in torch, and on a mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx.models.common.contrastive import ContrastiveConfig, contrastive_losses
from mjx.sharding import MeshConfig, build_mesh, use_mesh

RANDOM = np.random.RandomState(0)
ROWS, COLUMNS = RANDOM.randn(2, 8, 6).astype(np.float32)
COLUMNS += ROWS
COUNTED = np.array([1, 1, 1, 1, 1, 1, 1, 0], np.float32)


@functools.partial(jax.jit, static_argnames="symmetric")
def total(rows, columns, counted, symmetric):
    losses, nearest = contrastive_losses(rows, columns, counted, 20.0, symmetric=symmetric)
    return jnp.sum(losses * counted) / jnp.sum(counted), nearest


gradients = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)


@pytest.mark.parametrize("symmetric", [False, True])
def test_loss_and_gradients_are_those_of_sentence_transformers(symmetric):
    torch = pytest.importorskip("torch")
    losses = pytest.importorskip("sentence_transformers.losses")
    kind = losses.MultipleNegativesSymmetricRankingLoss if symmetric else losses.MultipleNegativesRankingLoss
    counted = COUNTED > 0
    both = [torch.tensor(array[counted], requires_grad=True) for array in (ROWS, COLUMNS)]

    class Given(torch.nn.Module):
        """Its sentences' vectors are what it is given."""

        def forward(self, features):
            return features

    theirs = kind(Given())([{"sentence_embedding": array} for array in both], labels=None)
    theirs.backward()
    (loss, _), found = gradients(ROWS, COLUMNS, COUNTED, symmetric)
    np.testing.assert_allclose(float(loss), float(theirs.detach()), rtol=1e-5)
    for ours, array in zip(found, both, strict=True):
        np.testing.assert_allclose(ours[counted], array.grad.numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(ours[~counted], 0)


def test_a_mesh_that_splits_the_rows_compares_each_with_all_columns():
    (loss, nearest), found = gradients(ROWS, COLUMNS, COUNTED, True)
    with use_mesh(build_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
        (on_mesh, theirs), others = jax.jit(gradients, static_argnums=3)(ROWS, COLUMNS, COUNTED, True)
    np.testing.assert_allclose(on_mesh, loss, rtol=1e-6)
    np.testing.assert_array_equal(theirs, nearest)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), others, found)


def test_a_row_whose_own_column_is_most_like_it_is_the_nearest():
    _, nearest = total(ROWS, ROWS, COUNTED, symmetric=False)
    assert nearest[:7].all()
    _, nearest = total(ROWS, np.roll(ROWS, 1, axis=0), COUNTED, symmetric=False)
    assert not nearest[:6].any()  # the like column of the seventh is none that counts


def test_a_temperature_that_float32_cannot_divide_by_is_refused():
    with pytest.raises(ValueError, match=r"temperature = 0.0 must be positive"):
        ContrastiveConfig(temperature=0.0)
