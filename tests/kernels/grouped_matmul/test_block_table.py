"""The table of blocks covers each group's rows, in their order and once."""

import jax
import numpy as np
import pytest

from mjx.kernels.grouped_matmul.block_table import block_table

ROWS, GROUPS = 40, 6


def table_of(sizes, rows=ROWS, block=8):
    made = jax.jit(block_table, static_argnums=(1, 2))(np.array(sizes, np.int32), rows, block)
    return jax.tree.map(np.asarray, made)


def sizes_of_all_kinds():
    random = np.random.RandomState(0)
    yield (0,) * GROUPS
    yield (0, ROWS, 0, 0, 0, 0)
    yield (1, 1, 1, 1, 1, 35)  # as many blocks as there can be
    yield (8, 8, 8, 8, 8, 0)
    yield (0, 0, 0, 0, 0, 3)
    for _ in range(30):
        ends = np.sort(random.randint(0, ROWS + 1, GROUPS))
        yield tuple(np.diff(ends, prepend=0).tolist())


@pytest.mark.parametrize("block", [1, 7, 8, 64])
def test_blocks_are_the_rows_of_each_group_in_their_order(block):
    for sizes in sizes_of_all_kinds():
        table = table_of(sizes, block=block)
        expected = []
        for group, (size, last) in enumerate(zip(sizes, np.cumsum(sizes).tolist(), strict=True)):
            for start in range(last - size, last, block):
                expected.append((group, start, min(start + block, last)))
        used = int(table.used)
        found = list(zip(*(column.tolist() for column in table[:3]), strict=True))
        assert used == len(expected), sizes
        assert found[:used] == expected, sizes
        assert all(start == stop == sum(sizes) for _, start, stop in found[used:]), sizes
        assert all(0 <= group < GROUPS for group, _, _ in found), sizes


@pytest.mark.parametrize(
    ("groups", "rows", "block", "blocks"), [(6, 40, 8, 10), (128, 3, 64, 3), (1, 65, 64, 2)]
)
def test_it_is_as_long_as_the_worst_case_and_no_longer(groups, rows, block, blocks):
    """Each group that can have a row has one, and the first has the rest."""
    begun = min(groups, rows)
    sizes = [rows - begun + 1, *[1] * (begun - 1), *[0] * (groups - begun)]
    table = table_of(sizes, rows, block)
    assert len(table.group) == blocks
    assert table.used == blocks
