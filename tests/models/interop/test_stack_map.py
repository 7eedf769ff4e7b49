"""Tables of hybrids: what a layer lacks is left out, and every number has its place."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from hybrid import (
    EXPERTS,
    HEAD_DIM,
    HEADS,
    WORD,
    hybrid,
    joined_expert_rows,
    paired,
    paired_rows,
    single_rows,
    tensors_of,
)

from mjx.errors import InputError
from mjx.models.interop.name_map import NameMap, Row
from mjx.models.interop.stack_map import stack_name_map, stack_places
from mjx.models.interop.tensor_layout import InMemory
from mjx.trees import flatten, unflatten


def single(word=WORD) -> NameMap:
    config = hybrid(word)
    return stack_name_map(config, single_rows(config), range(len(word)))


MAPS = {
    "pairs are layers": paired,
    "every sub-layer is a layer": single,
    "experts in one tensor": lambda: paired(experts=joined_expert_rows),
    "dense layers first": lambda: paired("*-" * 3 + "*E" * 5),
}


def templates(names: NameMap) -> set[str]:
    return {re.sub(r"\.\d+\.", ".N.", name) for name in names.theirs}


def parts_of(shape: tuple[int, ...], random: np.random.RandomState):
    bounds = [np.sort(random.randint(0, size + 1, 2)) for size in shape]
    return tuple(slice(int(low), int(high)) for low, high in bounds)


@pytest.mark.parametrize("kind", MAPS)
def test_there_and_back_again_is_the_same_bit_for_bit(kind):
    names = MAPS[kind]()
    given = tensors_of(names)
    back = names.to_theirs(names.to_ours(given))
    assert list(back) == list(given)
    for name, tensor in given.items():
        np.testing.assert_array_equal(back[name], tensor, err_msg=name)


@pytest.mark.parametrize("kind", MAPS)
def test_any_part_of_a_parameter_can_be_read_alone(kind):
    names, random = MAPS[kind](), np.random.RandomState(1)
    given = {name: InMemory(tensor) for name, tensor in tensors_of(names).items()}
    for path, whole in flatten(names.to_ours(tensors_of(names))).items():
        for _ in range(20):
            index = parts_of(whole.shape, random)
            np.testing.assert_array_equal(names.read(given, path, index), whole[index], err_msg=path)


def test_only_the_tensors_of_the_layers_and_experts_asked_for_are_read():
    names = paired()
    opened = []

    @dataclasses.dataclass(frozen=True)
    class Noted(InMemory):
        name: str

        def read(self, index=()):
            opened.append(self.name)
            return super().read(index)

    given = {name: Noted(tensor, name) for name, tensor in tensors_of(names).items()}
    path = next(path for path in flatten(names.to_ours(tensors_of(names))) if path.endswith("moe.up"))
    part = names.read(given, path, (slice(1, 2), slice(1, 3), slice(0, 8), slice(0, 6)))
    assert part.shape == (1, 2, 8, 6)
    assert opened == names.sources(path)[EXPERTS + 1 : EXPERTS + 3]
    assert names.depth(path) == 2
    assert opened[0].endswith("feed_forward.experts.1.w3.weight")


def test_a_layer_has_the_tensors_of_its_own_sub_layers():
    names = paired().theirs
    attention = {int(name.split(".")[1]) for name in names if ".self_attn." in name}
    experts = {int(name.split(".")[1]) for name in names if ".experts." in name}
    dense = {int(name.split(".")[1]) for name in names if ".feed_forward.up_proj" in name}
    assert attention == {2, 6}
    assert experts == {1, 3, 5, 7}
    assert dense == {0, 2, 4, 6, 8}
    assert {name for name in names if ".input_norm." in name} == {
        f"layers.{layer}.input_norm.weight" for layer in range(9)
    }
    assert sum(".experts." in name for name in names) == 3 * EXPERTS * len(experts)


def test_one_mixer_has_one_table_whatever_numbers_its_layers():
    assert {name.rpartition("mamba.")[2] for name in templates(paired()) if "mamba." in name} == {
        "in_proj.weight",
        "conv1d.weight",
        "A_log",
        "out_proj.weight",
    }
    assert "layers.N.mixer.in_proj.weight" in templates(single())
    assert len(single().theirs) == len(paired().theirs)


def test_every_number_goes_where_the_table_says():
    names = paired()
    given = tensors_of(names)
    ours = flatten(names.to_ours(given))
    config = hybrid(WORD)

    def of(sublayer: int, name: str) -> np.ndarray:
        path, layer = config.places[sublayer]
        return ours[f"{path}.{name}"][layer]

    w1 = given["layers.3.feed_forward.experts.2.w1.weight"]
    np.testing.assert_array_equal(of(7, "moe.gate")[2], w1.T)
    projected = given["layers.3.mamba.in_proj.weight"]
    inner = HEADS * HEAD_DIM
    x = projected[inner : 2 * inner].reshape(HEADS, HEAD_DIM, -1)
    np.testing.assert_array_equal(of(6, "recurrent.x"), x.transpose(2, 0, 1))
    np.testing.assert_array_equal(of(6, "recurrent.dt"), projected[-HEADS:].T)
    names = paired(experts=joined_expert_rows)
    given = tensors_of(names)
    ours = flatten(names.to_ours(given))
    both = given["layers.3.feed_forward.experts.gate_up_proj"]
    np.testing.assert_array_equal(of(7, "moe.gate"), both[..., ::2])
    np.testing.assert_array_equal(of(7, "moe.up"), both[..., 1::2])


def test_missing_and_unknown_experts_are_named():
    names = paired()
    given = tensors_of(names)
    del given["layers.1.feed_forward.experts.3.w2.weight"]
    given["layers.1.feed_forward.experts.4.w2.weight"] = np.zeros((8, 6), np.float32)
    given["layers.2.feed_forward.experts.0.w2.weight"] = np.zeros((8, 6), np.float32)  # a dense layer
    with pytest.raises(
        InputError,
        match=r"2 unknown \(layers\.1\.feed_forward\.experts\.4\.w2\.weight, layers\.2\.\S+\) and "
        r"1 missing \(layers\.1\.feed_forward\.experts\.3\.w2\.weight\)",
    ):
        names.to_ours(given)


@pytest.mark.parametrize(
    ("left_out", "extra", "odd"),
    [
        ("w2", [], r"1\.moe\.down, .*5\.moe\.down \(2 in all\)"),  # never filled
        ("", [Row("layers.{layer}.again.{expert}", "{moe}.moe.up")], r"\.moe\.up\[0, 0\]"),  # filled twice
        ("", [Row("layers.{layer}.again", "{moe}.moe.up")], r"\.moe\.up\[0\]"),  # … as a whole layer
        ("", [Row("layers.{layer}.norms.{expert}", "{moe}.norm.gain")], r"\.norm\.gain\[0, 0\]"),  # no such
        ("", [Row("x.{expert}", "nowhere")], r"nowhere\[0\]"),
        (
            "",
            [Row("layers.{layer}.self_attn.o_proj.weight", "{attention}.twice")],
            r"layers\.2\.self_attn\.o",
        ),
        ("o_proj", [Row("layers.{layer}.o", "{atention}.attention.output.kernel")], r"\.attention\.output"),
        ("A_log", [Row("layers.{layer}.A.{expert}.x", "{recurrent}.recurrent.A_log.x")], r"A_log"),
    ],
)
def test_a_table_that_is_no_bijection_is_refused_and_the_odd_ones_are_named(left_out, extra, odd):
    config = hybrid(WORD)
    rows = [row for row in paired_rows(config) if not left_out or left_out not in row.theirs]
    with pytest.raises(ValueError, match=rf"not a bijection: .*{odd}"):
        stack_name_map(config, [*rows, *extra], [at // 2 for at in range(len(WORD))])


@pytest.mark.parametrize(
    ("num_layers", "first", "odd"),
    [
        (2, 0, r"moe\.up\[2, 0\], moe\.up\[2, 1\] \(2 in all"),
        (3, 1, r"moe\.up\[3, 0\]"),
        (4, 0, r"moe\.up\[3, 1\]"),
    ],
)
def test_layers_and_experts_that_are_not_there_or_never_filled_are_named(num_layers, first, odd):
    shapes = unflatten({"moe.up": jax.ShapeDtypeStruct((3, 2, 5), np.float32)})
    rows = [Row("layers.{layer}.{expert}.up", "{moe}.up")]
    with pytest.raises(ValueError, match=rf"not a bijection: .*{odd}"):
        NameMap(rows, num_layers, lambda kind, layer: ("moe", layer + first), shapes)
    assert NameMap(rows, 3, lambda kind, layer: ("moe", layer), shapes).theirs


def test_a_tensor_cannot_hold_a_layer_s_sub_layer_and_one_that_it_lacks():
    both = Row("layers.{layer}.both", ("{mlp}.norm.scale", "{attention}.norm.scale"), "[embed] -> embed")
    with pytest.raises(ValueError, match=r"layer 0 has only some of the sub-layers that layers.{layer}.both"):
        paired(extra=[both])


def test_only_layers_and_experts_are_numbered():
    with pytest.raises(ValueError, match=r"a\.{block} numbers something else"):
        paired(extra=[Row("a.{block}", "final_norm.scale")])


def test_experts_without_layers_are_numbered_too():
    shapes = unflatten({"moe.up": jax.ShapeDtypeStruct((3, 2, 5), np.float32)})
    row = Row("experts.{expert}.up", "moe.up", "mlp embed -> embed mlp")
    names = NameMap([row], 0, lambda kind, layer: None, shapes)
    assert names.theirs == {f"experts.{expert}.up": (5, 2) for expert in range(3)}
    given = tensors_of(names)
    np.testing.assert_array_equal(flatten(names.to_ours(given))["moe.up"][1], given["experts.1.up"].T)


def test_a_layer_with_two_sub_layers_of_one_kind_is_an_error():
    with pytest.raises(ValueError, match=r"layer 0 has two sub-layers {mlp}"):
        stack_places(hybrid("--"), {"decoder": [0, 0]})


def test_layers_that_hold_nothing_of_ours_are_passed_over():
    """A layer of theirs that does nothing has a number and no tensors (Megatron's heterogeneous layers)."""
    config = hybrid("*--")
    names = stack_name_map(config, paired_rows(config), [0, 0, 2])
    numbers = {int(name.split(".")[1]) for name in names.theirs if name.startswith("layers.")}
    assert numbers == {0, 2}
    assert not [name for name in names.theirs if name.startswith("layers.2.self_attn")]


def test_tens_of_thousands_of_experts_are_one_layout():
    """Looked at by what is made, not by the clock: DeepSeek-V3 has 58 layers of 256 experts."""
    shapes = {f"moe.{name}": jax.ShapeDtypeStruct((58, 256, 4, 2), np.float32) for name in ("gate", "up")}
    row = Row("layers.{layer}.{expert}.up", "{moe}.up", "mlp embed -> embed mlp")
    names = NameMap(
        [row, dataclasses.replace(row, theirs="layers.{layer}.{expert}.gate", ours="{moe}.gate")],
        61,
        lambda kind, layer: ("moe", layer - 3) if layer >= 3 else None,
        unflatten(shapes),
    )
    assert len(names.theirs) == 2 * 58 * 256
    assert len({id(names._entries[name].layout) for name in names.theirs}) == 2
