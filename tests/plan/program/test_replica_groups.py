"""Every spelling of a collective's devices, against groups written out by hand."""

import pytest

from mjx.plan.program.replica_groups import replica_groups, source_target_pairs

ROWS = [(0, 1, 2, 3), (4, 5, 6, 7)]
COLUMNS = [(0, 4), (1, 5), (2, 6), (3, 7)]
SPELLINGS = {
    # Written out.
    "{{0,1,2,3},{4,5,6,7}}": ROWS,
    "{{0,4},{1,5},{2,6},{3,7}}": COLUMNS,
    "{{3,0,1,2},{7,4,5,6}}": [(3, 0, 1, 2), (7, 4, 5, 6)],
    "{{0},{1},{2},{3},{4},{5},{6},{7}}": [(i,) for i in range(8)],
    "{}": [tuple(range(8))],
    # The numbers in order, in a shape, transposed.
    "[1,8]<=[8]": [tuple(range(8))],
    "[2,4]<=[8]": ROWS,
    "[2,4]<=[2,4]": ROWS,
    "[4,2]<=[2,4]T(1,0)": COLUMNS,
    "[4,2]<=[2,2,2]T(1,2,0)": COLUMNS,
    "[4,2]<=[2,2,2]T(0,2,1)": [(0, 2), (1, 3), (4, 6), (5, 7)],
    "[2,4]<=[4,2]T(1,0)": [(0, 2, 4, 6), (1, 3, 5, 7)],
    # Axes of a mesh.
    "mesh['a'=2,'b'=4] {'b'}": ROWS,
    "mesh['a'=2,'b'=4] {'a'}": COLUMNS,
    "mesh['a'=2,'b'=4] {'a','b'}": [tuple(range(8))],
    "mesh['a'=2,'b'=4] {'b','a'}": [(0, 4, 1, 5, 2, 6, 3, 7)],
    "mesh['a'=2,'b'=4] {}": [(i,) for i in range(8)],
    "mesh[a=2,b=4] {a}": COLUMNS,
    'mesh["a"=2,"b"=4] {"a"}': COLUMNS,
    "mesh['axis_0'=2,'axis_1'=1,'axis_2'=4] {'axis_1','axis_2'}": ROWS,
    "mesh['a'=2,'b'=2,'c'=2] {'a','c'}": [(0, 1, 4, 5), (2, 3, 6, 7)],
    "mesh['a'=2,'b'=2,'c'=2] {'b'}": [(0, 2), (1, 3), (4, 6), (5, 7)],
    # Parts of an axis, (size of what is before it)size: 8 = 2 · 2 · 2 and 4 = 2 · 2.
    "mesh['a'=8] {'a':(1)2}": COLUMNS,
    "mesh['a'=8] {'a':(2)2}": [(0, 2), (1, 3), (4, 6), (5, 7)],
    "mesh['a'=8] {'a':(4)2}": [(0, 1), (2, 3), (4, 5), (6, 7)],
    "mesh['a'=8] {'a':(2)4}": ROWS,
    "mesh['a'=8] {'a':(1)4}": [(0, 2, 4, 6), (1, 3, 5, 7)],
    "mesh['a'=8] {'a':(1)2,'a':(4)2}": [(0, 1, 4, 5), (2, 3, 6, 7)],
    "mesh['a'=8] {'a':(4)2,'a':(1)2}": [(0, 4, 1, 5), (2, 6, 3, 7)],
    "mesh['a'=2,'b'=4] {'a','b':(1)2}": [(0, 2, 4, 6), (1, 3, 5, 7)],
    "mesh['a'=2,'b'=4] {'a','b':(2)2}": [(0, 1, 4, 5), (2, 3, 6, 7)],
    "mesh[a=2,b=4] {b:(2)2}": [(0, 1), (2, 3), (4, 5), (6, 7)],
    # A mesh whose devices are not in order: [[0,2,4,6],[1,3,5,7]], and backwards.
    "mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}": [(0, 2, 4, 6), (1, 3, 5, 7)],
    "mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'a'}": [(0, 1), (2, 3), (4, 5), (6, 7)],
    "mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b':(1)2}": [(0, 4), (2, 6), (1, 5), (3, 7)],
    "mesh['a'=2,'b'=4], device_ids=(7,6,5,4,3,2,1,0) {'b'}": [(7, 6, 5, 4), (3, 2, 1, 0)],
    "mesh['a'=2,'b'=4], device_ids=(7,6,5,4,3,2,1,0) {'a'}": [(7, 3), (6, 2), (5, 1), (4, 0)],
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_spelling_is_the_groups_written_by_hand(spelling):
    attributes = f", channel_id=1, replica_groups={spelling}, use_global_device_ids=true, to_apply=%add"
    assert replica_groups(attributes, devices=8) == SPELLINGS[spelling]


def test_a_mesh_of_four_devices_listed_backwards():
    groups = replica_groups("replica_groups=mesh['a'=2,'b'=2], device_ids=(3,2,1,0) {'b'}", devices=4)
    assert groups == [(3, 2), (1, 0)]


def test_of_64_devices_the_inner_axis_is_a_node_and_a_part_of_the_outer_one_is_not():
    mesh = "replica_groups=mesh['a'=8,'b'=8]"
    assert replica_groups(f"{mesh} {{'b'}}", 64) == [tuple(range(8 * i, 8 * i + 8)) for i in range(8)]
    assert replica_groups(f"{mesh} {{'a'}}", 64) == [tuple(range(i, 64, 8)) for i in range(8)]
    halves = replica_groups(f"{mesh} {{'a':(2)4}}", 64)
    assert halves[:2] == [(0, 8, 16, 24), (1, 9, 17, 25)]
    assert halves[8:10] == [(32, 40, 48, 56), (33, 41, 49, 57)]


@pytest.mark.parametrize(
    ("spelling", "sentence"),
    [
        ("", "no replica groups are known in"),
        ("maximal_mesh[device_id=0] {}", "no replica groups are known in"),
        ("{{0,1},{2,3}}", "with 4 members do not split 8 devices evenly"),
        ("{{0,1,2},{3,4,5,6,7}}", r"of \[3, 5\] devices"),
        ("{{0,1,2,3},{3,4,5,6}}", "do not split 8 devices evenly"),
        ("[2,2]<=[4]", "with 4 members do not split 8 devices evenly"),
        ("[3,2]<=[8]", "cannot reshape"),
        ("mesh['a'=2,'b'=2] {'b'}", "with 4 members do not split 8 devices evenly"),
        ("mesh['a'=2,'b'=4] {'c'}", r"over \{'c'\} are not in their mesh \['a'=2,'b'=4\]"),
        ("mesh['a'=2,'b'=4] {'b':(2)4}", r"over \{'b':\(2\)4\} are not in their mesh"),
        ("mesh['a'=2,'b'=4], device_ids=(1,0) {'b'}", "cannot reshape"),
        ("mesh['a'=2,'b'=4], device_ids=(0,0,1,1,2,2,3,3) {'b'}", "do not split 8 devices evenly"),
    ],
)
def test_groups_that_are_not_understood_or_do_not_split_the_devices_are_refused(spelling, sentence):
    with pytest.raises(ValueError, match=sentence):
        replica_groups(f", channel_id=1, replica_groups={spelling}, dimensions={{0}}", devices=8)


def test_a_permutation_says_who_sends_to_whom():
    attributes = ", channel_id=1, source_target_pairs={{0,1},{1,2},{2,3},{3,0},{5,5}}, metadata={}"
    assert source_target_pairs(attributes) == [(0, 1), (1, 2), (2, 3), (3, 0), (5, 5)]
    assert source_target_pairs("source_target_pairs={}") == []
    with pytest.raises(ValueError, match="no source_target_pairs are known in: , channel_id=1"):
        source_target_pairs(", channel_id=1")
