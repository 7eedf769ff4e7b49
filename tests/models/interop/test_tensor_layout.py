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
    "in turn": ("experts embed (mlp [1]) -> experts embed mlp", [(3, 4, 5)] * 2, {}),
    "of several kinds": (
        "[(heads head_dim) | (heads head_dim) | (groups state) | (groups state) | heads] embed -> "
        "embed heads head_dim | embed heads head_dim | embed groups state | embed groups state | embed heads",
        [(3, 4, 5), (3, 4, 5), (3, 2, 3), (3, 2, 3), (3, 4)],
        {},
    ),
    "of several kinds, inputs first": (
        "embed [heads | (groups state)] 1 -> heads embed | groups embed state",
        [(4, 3), (2, 3, 5)],
        {},
    ),
    "of several kinds in each group": (
        "(group [key | 1 | (ratio value) | ratio] 1) embed -> embed group key | group embed | "
        "embed (group ratio) value | (group ratio) embed",
        [(3, 2, 4), (2, 3), (3, 6, 2), (6, 3)],
        {"group": 2, "ratio": 3},
    ),
    "of several kinds with axes inside": (
        "(heads [nope | value] part) rank -> rank heads nope part | heads value part rank",
        [(5, 3, 2, 4), (3, 1, 4, 5)],
        {},
    ),
    "theirs has one more": ("1 1 embed (1 width) -> embed width", [(4, 3)], {}),
    "ours has one more": ("(mlp 1) embed -> 1 embed 1 mlp", [(1, 3, 1, 4)], {}),
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


def test_every_kind_lies_where_its_own_side_says():
    z = np.arange(8.0).reshape(1, 2, 4)  # two heads of four
    b = 10 + np.arange(6.0).reshape(1, 2, 3)  # two groups of three
    dt = 20 + np.arange(2.0).reshape(1, 2)
    text = (
        "[(heads head_dim) | (state groups) | heads] embed -> "
        "embed heads head_dim | embed groups state | embed heads"
    )
    layout = TensorLayout(text, [z.shape, b.shape, dt.shape])
    assert layout.theirs == (16, 1)
    np.testing.assert_array_equal(layout.write([z, b, dt])[:8, 0], np.arange(8))
    np.testing.assert_array_equal(layout.write([z, b, dt])[8:, 0], [10, 13, 11, 14, 12, 15, 20, 21])


def test_what_takes_turns_lies_in_turn():
    gate, up = np.arange(3.0).reshape(1, 1, 3), 10 + np.arange(3.0).reshape(1, 1, 3)
    layout = TensorLayout("experts embed (mlp [1]) -> experts embed mlp", [gate.shape, up.shape])
    np.testing.assert_array_equal(layout.write([gate, up]).ravel(), [0, 10, 1, 11, 2, 12])


def test_of_several_kinds_only_what_is_asked_for_is_read():
    text, shapes, sizes = LAYOUTS["of several kinds"]
    layout = TensorLayout(text, shapes, sizes)
    theirs = layout.write([np.ones(shape) for shape in shapes])
    for part, index, count in (
        (1, (slice(0, 2), slice(1, 3), slice(0, 5)), 2 * 2 * 5),  # two heads
        (1, (slice(0, 3), slice(2, 3), slice(1, 3)), 3 * 1 * 2),  # a part of one
        (3, (slice(1, 2), slice(0, 1), slice(0, 3)), 3),
        (4, (slice(0, 3), slice(3, 4)), 3),
        (0, (slice(0, 3), slice(2, 2), slice(0, 5)), 0),
    ):
        Counting.count = 0
        layout.read(Counting(theirs), part, index)
        assert Counting.count == count


@pytest.mark.parametrize(
    ("text", "shapes", "sizes", "message"),
    [
        ("[a] [b] -> a b", [(2, 3)], {}, "more than one axis in brackets"),
        ("a b -> a b", [(2, 3), (2, 3)], {}, "no \\[axis\\]"),
        ("a b -> a c", [(2, 3)], {}, "same axes"),
        ("(a b) -> (a b)", [(6,)], {}, "does not say how"),
        ("(a b) -> (a b)", [(6,)], {"a": 4}, "does not say how"),
        ("a b -> a b", [(6,)], {}, "2 axes"),
        ("[a | b] -> a | b", [(2,)], {}, "2 kinds of parameters on its left and 2 on its right, for 1 param"),
        ("[a | b] -> a", [(2,), (3,)], {}, "2 kinds of parameters on its left and 1 on its right"),
        ("[a] -> a | a", [(2,), (3,)], {}, "1 kinds of parameters on its left and 2 on its right"),
        ("[a | b] c -> a c | b", [(2, 3), (4,)], {}, "same axes"),
        ("[a | b] c -> a c | b c", [(2, 3), (4, 5)], {}, "other axes differ"),
        ("(c [a]) -> a c", [(2, 3), (2, 4)], {}, "other axes differ"),
        ("(a b -> a b", [(2, 3)], {}, "cannot be read"),
        ("a) b -> a b", [(2, 3)], {}, "cannot be read"),
        ("a () -> a", [(2,)], {}, "cannot be read"),
        ("a 2 -> a 2", [(2, 2)], {}, "cannot be read"),
        ("1 -> ", [()], {}, "no axis in which a 1"),
    ],
)
def test_a_layout_that_does_not_fit_is_an_error(text, shapes, sizes, message):
    with pytest.raises(ValueError, match=message):
        TensorLayout(text, shapes, sizes)
