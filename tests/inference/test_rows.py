"""Rows of different lengths, in batches."""

import random

import numpy as np

from mjx.inference.rows import batches_of_rows


def test_every_row_is_in_one_batch_and_there_are_few_shapes_and_little_padding():
    draw = random.Random(0)
    rows = [[draw.randrange(1, 99) for _ in range(draw.randint(1, 90))] for _ in range(1000)]
    batches = list(batches_of_rows(rows, 1024, multiple=4))
    members = [member for batch in batches for member in batch.members]
    assert sorted(members) == list(range(1000))
    for batch in batches:
        assert len(batch.tokens) % 4 == 0
        for place, member in enumerate(batch.members):
            length = batch.lengths[place]
            assert batch.tokens[place, :length].tolist() == rows[member]
        assert not batch.lengths[len(batch.members) :].any()
    assert len({batch.tokens.shape for batch in batches}) <= 13
    assert sum(batch.tokens.size for batch in batches) < 1.2 * sum(map(len, rows))


def test_no_batch_is_wider_than_positions_and_a_long_row_has_one_to_itself():
    batches = list(batches_of_rows([[1] * 50, [2] * 3, []], 16, widest=50))
    assert [batch.tokens.shape for batch in batches] == [(1, 50), (2, 8)]
    assert [batch.members for batch in batches] == [[0], [1, 2]]
    np.testing.assert_array_equal(batches[1].lengths, [3, 0])
    assert list(batches_of_rows([], 16)) == []
