import dataclasses

import jax
import numpy as np
import pytest

from mjx.errors import InputError
from mjx.models.interop.name_map import NameMap, Row
from mjx.models.interop.tensor_layout import InMemory
from mjx.trees import flatten, unflatten

SHAPES = {
    "embedding.weight": (8, 4),
    "stack.0.attention.query.kernel": (2, 4, 2, 3),
    "stack.0.attention.key.kernel": (2, 4, 1, 3),
    "stack.1.mlp.gate.kernel": (2, 4, 5),
    "stack.1.mlp.up.kernel": (2, 4, 5),
    "final.bias": (2, 2),
}
ROWS = [
    Row("word.weight", "embedding.weight", rows=6),
    Row(
        "layers.{layer}.qk.weight",
        ("{attention}.attention.query.kernel", "{attention}.attention.key.kernel"),
        "([heads] head_dim) embed -> embed heads head_dim",
    ),
    Row(
        "layers.{layer}.fc1.weight",
        ("{mlp}.mlp.gate.kernel", "{mlp}.mlp.up.kernel"),
        "[mlp] embed -> embed mlp",
    ),
    Row("final.bias", "final.bias", "(heads head_dim) -> heads head_dim"),
]
THEIRS = {
    "word.weight": (6, 4),
    **{f"layers.{layer}.qk.weight": (9, 4) for layer in (0, 1)},
    **{f"layers.{layer}.fc1.weight": (10, 4) for layer in (0, 1)},
    "final.bias": (4,),
}


def place(kind: str, layer: int) -> tuple[str, int]:
    return f"stack.{('attention', 'mlp').index(kind)}", layer


def table(rows=ROWS) -> NameMap:
    abstract = {path: jax.ShapeDtypeStruct(shape, np.float32) for path, shape in SHAPES.items()}
    return NameMap(rows, 2, place, unflatten(abstract))


def tensors() -> dict[str, np.ndarray]:
    random = np.random.RandomState(0)
    return {name: random.randn(*shape).astype(np.float32) for name, shape in THEIRS.items()}


def test_there_and_back_again_is_the_same_bit_for_bit():
    given = tensors()
    ours = table().to_ours(given)
    assert {path: leaf.shape for path, leaf in flatten(ours).items()} == SHAPES
    back = table().to_theirs(ours)
    assert back.keys() == given.keys()
    for name, tensor in given.items():
        np.testing.assert_array_equal(back[name], tensor, err_msg=name)


def test_every_number_goes_where_the_table_says():
    given = tensors()
    ours = flatten(table().to_ours(given))
    np.testing.assert_array_equal(ours["embedding.weight"][:6], given["word.weight"])
    np.testing.assert_array_equal(ours["embedding.weight"][6:], 0)
    fused = given["layers.1.qk.weight"]  # two queries of three features, then the key
    np.testing.assert_array_equal(ours["stack.0.attention.query.kernel"][1, :, 1], fused[3:6].T)
    np.testing.assert_array_equal(ours["stack.0.attention.key.kernel"][1, :, 0], fused[6:].T)
    np.testing.assert_array_equal(ours["stack.1.mlp.up.kernel"][0], given["layers.0.fc1.weight"][5:].T)


def test_unknown_tensors_are_named():
    with pytest.raises(
        InputError, match=r"do not fit the model: 2 unknown \(layers\.2\.qk\.weight, lm_head\)"
    ):
        table().to_ours(tensors() | {"layers.2.qk.weight": np.zeros(1), "lm_head": np.zeros(1)})


def test_missing_tensors_are_named():
    given = tensors()
    del given["final.bias"]
    with pytest.raises(InputError, match=r"1 missing \(final\.bias\)"):
        table().to_ours(given)
    with pytest.raises(InputError, match=r"1 unknown \(x\) and 6 missing \(word\.weight, .* …\)"):
        table().to_ours({"x": np.zeros(1)})


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("layers.0.qk.weight", (10, 4)),
        ("layers.0.qk.weight", (9, 5)),
        ("layers.1.fc1.weight", (9, 4)),
        ("layers.1.fc1.weight", (10, 5)),
        ("final.bias", (5,)),
        ("word.weight", (6, 5)),
        ("word.weight", (9, 4)),
        ("word.weight", (5, 4)),
        ("word.weight", (8, 4)),
    ],
)
def test_a_tensor_of_another_shape_is_named_with_its_shape(name, shape):
    with pytest.raises(InputError, match=rf"tensor {name}.* shape"):
        table().to_ours(tensors() | {name: np.zeros(shape, np.float32)})


@pytest.mark.parametrize(
    ("rows", "odd"),
    [
        (ROWS[:-1], "final.bias"),  # one of ours is never filled
        ([*ROWS, Row("extra", "final.bias")], "final.bias"),  # … or filled twice
        ([*ROWS, Row("extra", "nowhere")], "nowhere"),  # … or does not exist
        (
            [
                *ROWS[:2],
                Row("layers.{layer}.fc1.weight", "{mlp}.mlp.up.kernel", "mlp embed -> embed mlp"),
                ROWS[3],
            ],
            "gate",
        ),
    ],
)
def test_a_table_that_is_no_bijection_is_refused(rows, odd):
    with pytest.raises(ValueError, match=rf"not a bijection: .*{odd}"):
        table(rows)


def test_two_rows_for_one_tensor_are_refused():
    twice = Row("word.weight", "final.bias")
    with pytest.raises(ValueError, match="not a bijection"):
        table([*ROWS[:-1], twice])


def test_a_per_layer_row_has_to_name_a_sub_layer():
    with pytest.raises(ValueError, match=r"stack\.1\.mlp\.up\.kernel of the per-layer row .* does not name"):
        table([Row("layers.{layer}.fc1.weight", "stack.1.mlp.up.kernel")])


def parts_of(shape: tuple[int, ...], random: np.random.RandomState):
    bounds = [np.sort(random.randint(0, size + 1, 2)) for size in shape]
    return tuple(slice(int(low), int(high)) for low, high in bounds)


@pytest.mark.parametrize("path", SHAPES)
def test_any_part_of_a_parameter_can_be_read_alone(path):
    random = np.random.RandomState(1)
    given = {name: InMemory(tensor) for name, tensor in tensors().items()}
    whole = flatten(table().to_ours(tensors()))[path]
    for _ in range(100):
        index = parts_of(whole.shape, random)
        if len(whole.shape) > 2 and index[0].start == index[0].stop:
            continue  # no layers
        np.testing.assert_array_equal(table().read(given, path, index), whole[index])


def test_copies_have_to_be_equal_and_ignored_tensors_may_be_anything():
    shapes = {"embedding.weight": jax.ShapeDtypeStruct((8, 4), np.float32)}
    names = NameMap(
        [Row("word.weight", "embedding.weight", rows=6)],
        0,
        place,
        unflatten(shapes),
        copies={"head.weight": "word.weight"},
        ignored=(r"h\.\d+\.attn\.bias",),
    )
    word = np.arange(24, dtype=np.float32).reshape(6, 4)
    names.to_ours({"word.weight": word, "head.weight": word.copy(), "h.3.attn.bias": np.zeros(7)})
    with pytest.raises(InputError, match=r"head\.weight differs from word\.weight"):
        names.to_ours({"word.weight": word, "head.weight": word + 1})
    with pytest.raises(InputError, match=r"unknown \(h\.x\.attn\.bias\)"):
        names.to_ours({"word.weight": word, "h.x.attn.bias": np.zeros(7)})


def test_rows_that_pad_their_table_are_not_read_where_a_row_allows_them():
    padded = {**tensors(), "word.weight": np.full((7, 4), 9.0, np.float32)}
    with pytest.raises(InputError, match=r"word.weight has the shape \[7, 4\], .* asks for \[6, 4\]"):
        table().to_ours(padded)
    names = table([dataclasses.replace(ROWS[0], padded=True), *ROWS[1:]])
    ours = flatten(names.to_ours(padded))["embedding.weight"]
    np.testing.assert_array_equal(ours, [[9.0] * 4] * 6 + [[0.0] * 4] * 2)
    assert names.to_theirs(names.to_ours(padded))["word.weight"].shape == (6, 4)
    for wrong in ((5, 4), (7, 3)):
        with pytest.raises(InputError, match=r"word.weight has the shape"):
            names.to_ours({**tensors(), "word.weight": np.zeros(wrong, np.float32)})
