"""Rows of different lengths, in batches."""

import random

from mjx.inference.rows import row_batches


def test_every_row_is_in_one_batch_and_there_are_few_shapes_and_little_padding():
    draw = random.Random(0)
    lengths = [draw.randint(1, 90) for _ in range(1000)]
    batches = list(row_batches(lengths, 1024, multiple=4))
    assert sorted(member for batch in batches for member in batch.members) == list(range(1000))
    for batch in batches:
        assert batch.rows % 4 == 0
        assert len(batch.members) <= batch.rows
        assert max(lengths[member] for member in batch.members) <= batch.width
    assert len({(batch.rows, batch.width) for batch in batches}) <= 13
    assert sum(batch.rows * batch.width for batch in batches) < 1.2 * sum(lengths)


def test_no_batch_is_wider_than_positions_and_a_long_row_has_one_to_itself():
    batches = list(row_batches([50, 3, 0], 16, widest=50))
    assert batches == [([0], 1, 50), ([1, 2], 2, 8)]
    assert list(row_batches([], 16)) == []
