import numpy as np
import pytest

from mjx.models.interop.tensor_layout import InMemory, TensorLayout

LAYOUTS = {
    "rows": ("(heads head_dim) embed -> embed heads head_dim", [(6, 4, 3)], {}),
    "columns": ("embed (heads head_dim) -> heads head_dim embed", [(4, 3, 6)], {}),
    "per group": (
        "(group [heads] head_dim) embed -> embed (group heads) head_dim",
        [(6, 8, 3), (6, 2, 3), (6, 2, 3)],
        {"group": 2},
    ),
    "one after the other": ("([heads] head_dim) embed -> embed heads head_dim", [(6, 8, 3), (6, 2, 3)], {}),
    "inputs first": ("embed ([heads] head_dim) -> embed heads head_dim", [(6, 4, 3)] * 3, {}),
    "interleaved": ("(mlp [pair]) embed -> embed (mlp pair)", [(6, 5), (6, 5)], {"pair": 1}),
    "bias": ("([heads] head_dim) -> heads head_dim", [(4, 3), (2, 3)], {}),
    "same": (None, [(4, 3)], {}),
    "scalar": (None, [()], {}),
}


class Counting(InMemory):
    """Counts the numbers that are read."""

    count = 0

    def read(self, index=()):
        part = super().read(index)
        type(self).count += part.size
        return part


@pytest.mark.parametrize("name", LAYOUTS)
def test_parts_read_alone_are_those_of_the_whole(name):
    text, shapes, sizes = LAYOUTS[name]
    layout, random = TensorLayout(text, shapes, sizes), np.random.RandomState(0)
    ours = [np.asarray(random.randn(*shape)) for shape in shapes]
    theirs = layout.write(ours)
    assert theirs.shape == layout.theirs
    for part, whole in enumerate(ours):
        for _ in range(100):
            bounds = [np.sort(random.randint(0, size + 1, 2)) for size in whole.shape]
            index = tuple(slice(int(low), int(high)) for low, high in bounds)
            np.testing.assert_array_equal(layout.read(InMemory(theirs), part, index), whole[index])


def test_per_group_and_one_after_the_other_lie_as_they_say():
    q, k = np.arange(4.0).reshape(1, 4, 1), 10 + np.arange(2.0).reshape(1, 2, 1)
    grouped = TensorLayout(
        "(group [heads] head_dim) embed -> embed (group heads) head_dim", [q.shape, k.shape], {"group": 2}
    )
    np.testing.assert_array_equal(grouped.write([q, k]).ravel(), [0, 1, 10, 2, 3, 11])
    joined = TensorLayout("([heads] head_dim) embed -> embed heads head_dim", [q.shape, k.shape])
    np.testing.assert_array_equal(joined.write([q, k]).ravel(), [0, 1, 2, 3, 10, 11])


def test_only_what_is_asked_for_is_read():
    text, shapes, sizes = LAYOUTS["per group"]
    layout = TensorLayout(text, shapes, sizes)
    tensor = Counting(layout.write([np.ones(shape) for shape in shapes]))
    layout.read(tensor, 0, (slice(2, 4), slice(4, 8), slice(0, 3)))  # the queries of the second group
    assert Counting.count == 2 * 4 * 3


@pytest.mark.parametrize(
    ("text", "shapes", "sizes", "message"),
    [
        ("[a] [b] -> a b", [(2, 3)], {}, "more than one axis in brackets"),
        ("a b -> a b", [(2, 3), (2, 3)], {}, "no \\[axis\\]"),
        ("a b -> a c", [(2, 3)], {}, "same axes"),
        ("(a b) -> (a b)", [(6,)], {}, "does not say how"),
        ("(a b) -> (a b)", [(6,)], {"a": 4}, "does not say how"),
        ("a b -> a b", [(6,)], {}, "2 axes"),
    ],
)
def test_a_layout_that_does_not_fit_is_an_error(text, shapes, sizes, message):
    with pytest.raises(ValueError, match=message):
        TensorLayout(text, shapes, sizes)
