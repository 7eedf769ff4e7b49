"""Batches of rows of like length: every row once, few shapes."""

import numpy as np
import pytest

from mjx.inference.rows import mesh_multiples, padded, row_batches
from mjx.sharding import MeshConfig, build_mesh, default_rules


@pytest.mark.parametrize("multiples", [(1, 1), (4, 6)])
def test_every_row_is_in_one_batch_that_is_wide_enough(multiples):
    lengths = np.random.RandomState(0).randint(2, 500, 333).tolist()
    batches = list(row_batches(lengths, 10, multiples=multiples, longest=500))
    assert sorted(np.concatenate([batch.rows for batch in batches])) == list(range(333))
    for rows, height, width in batches:
        longest = max(lengths[row] for row in rows)
        assert len(rows) <= height
        assert width >= longest
        assert (height % multiples[0], width % multiples[1]) == (0, 0)
        assert width <= max(16, 1.5 * longest) + multiples[1]
    assert len({(height, width) for _, height, width in batches}) <= 12


def test_a_mesh_says_what_rows_and_tokens_are_multiples_of():
    mesh = build_mesh(MeshConfig(data=2, context=2, tensor=2))
    assert mesh_multiples(mesh, default_rules()) == (2, 4)
    assert mesh_multiples(mesh, default_rules(sequence_parallel=False)) == (2, 2)
    assert padded({"a": np.ones((2, 3))}, 4)["a"].sum(axis=1).tolist() == [3, 3, 0, 0]
