"""The segments of a pattern are a checkpoint's format: exactly these, found by whatever means."""

import dataclasses
import itertools

import pytest

from mjx.errors import InputError
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.pattern import Segment, SublayerConfig, find_segments, places


def sublayer(letter: str) -> SublayerConfig:
    """Each letter is a kind of sub-layer of its own."""
    return SublayerConfig(mixer=MLPConfig(features=ord(letter)), norm=NormConfig())


def segments(word: str) -> list[tuple[str, int]]:
    found = find_segments(tuple(map(sublayer, word)))
    return [("".join(chr(s.mixer.features) for s in segment.unit), segment.repeats) for segment in found]


# Megatron's symbols: * attention, - MLP, E experts, M Mamba, G gated delta net, + MLA; w is attention in
# a window.
LAYOUTS = {
    "one": ("*", [("*", 1)]),
    "nothing repeated": ("M*-", [("M*-", 1)]),
    "one kind": ("****", [("*", 4)]),
    "dense": ("*-" * 48, [("*-", 48)]),
    "DeepSeek-V3": ("+-" * 3 + "+E" * 58, [("+-", 3), ("+E", 58)]),
    "every other window (Gemma 2)": ("w-*-" * 13, [("w-*-", 13)]),
    "one local layer in six is left over": ("w-" * 5 + "*-", [("w-", 5), ("*-", 1)]),
    "Gemma 3 1B": (("w-" * 5 + "*-") * 4 + "w-" * 2, [("w-", 2), ("w-w-w-*-w-w-", 4)]),
    "Gemma 3 4B": (("w-" * 5 + "*-") * 5 + "w-" * 4, [("w-", 4), ("w-*-w-w-w-w-", 5)]),
    "Gemma 3 12B": (("w-" * 5 + "*-") * 8, [("w-w-w-w-w-*-", 8)]),
    "Gemma 3 27B": (("w-" * 5 + "*-") * 10 + "w-" * 2, [("w-", 2), ("w-w-w-*-w-w-", 10)]),
    "Llama 4 Maverick": ("w-wEw-*E" * 12, [("w-wEw-*E", 12)]),
    "Qwen3-Next": ("GEGEGE*E" * 12, [("GEGEGE*E", 12)]),
    "Jamba": ("M-MEM-ME*-MEM-ME" * 4, [("M-MEM-ME*-MEM-ME", 4)]),
    "Nemotron-H 8B": (
        "M-M-M-M*-" + "M-M-M-M-M*-" * 3 + "M-M-M-M-M-",
        [("M-M-M-M*-M-", 4), ("M-", 4)],
    ),
    "Nemotron 3 Nano": (
        "MEMEM*E" * 5 + "MEMEMEM*E" + "MEMEMEME",
        [("MEMEM*E", 5), ("ME", 3), ("M*E", 1), ("ME", 4)],
    ),
}
"""Name → (pattern, its segments). No entry ever changes: stored parameters are stacked so."""


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_segments_are_those_of_the_checkpoints_that_exist(name):
    word, expected = LAYOUTS[name]
    assert segments(word) == expected
    assert "".join(unit * repeats for unit, repeats in expected) == word


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_way_to_cut_a_known_pattern_traces_less_or_has_fewer_segments(name):
    """The cheapest way to every end, from the front, where the code comes from the back."""
    word, expected = LAYOUTS[name]
    cheapest = [(0, 0)]
    for end in range(1, len(word) + 1):
        cheapest.append(
            min(
                (cheapest[start][0] + unit, cheapest[start][1] + 1)
                for start in range(end)
                for unit in range(1, end - start + 1)
                if (end - start) % unit == 0
                and word[start : start + unit] * ((end - start) // unit) == word[start:end]
            )
        )
    assert cheapest[-1] == (sum(len(unit) for unit, _ in expected), len(expected))


def ways(word: str):
    """Every way to write a word as repeated units."""
    if not word:
        yield []
    for unit in range(1, len(word) + 1):
        for repeats in range(1, len(word) // unit + 1):
            if word.startswith(word[:unit] * repeats):
                for rest in ways(word[unit * repeats :]):
                    yield [(word[:unit], repeats), *rest]


def test_of_all_ways_it_takes_the_least_traced_then_the_fewest_segments_then_the_shortest_first():
    """All words of up to seven letters out of three. Where two ways are equal in both, the first segment
    with a shorter unit wins, then the one with fewer repeats: that decides what a checkpoint looks like."""

    def cost(way: list[tuple[str, int]]):
        lengths = [(len(unit), repeats) for unit, repeats in way]
        return sum(unit for unit, _ in lengths), len(way), lengths

    for length in range(1, 8):
        for letters in itertools.product("abc", repeat=length):
            word = "".join(letters)
            if list(dict.fromkeys(word)) == sorted(set(word)):  # others are the same with other names
                assert segments(word) == min(ways(word), key=cost)


def parallel(letter: str) -> SublayerConfig:
    return dataclasses.replace(sublayer(letter), parallel=True)


def test_a_parallel_sublayer_stays_with_the_one_in_front():
    a, b = sublayer("a"), parallel("b")
    assert find_segments((a, b) * 6) == (Segment((a, b), 6),)
    # Without that, three times b would be a segment of its own.
    assert find_segments((a, b, b, b)) == (Segment((a, b, b, b), 1),)
    # Neither may the last of a repeated a take a b with it: (a) × 3, (a, b) × 1 it is.
    assert find_segments((a, a, a, a, b)) == (Segment((a,), 3), Segment((a, b), 1))
    c = sublayer("c")
    assert find_segments((a, b, c) * 2 + (a, b) * 5) == (Segment((a, b, c), 2), Segment((a, b), 5))


def test_what_is_aside_stays_with_what_reads_it():
    s, m = dataclasses.replace(sublayer("s"), aside=True), sublayer("m")
    assert find_segments((m, m, s, m) * 3) == (Segment((m, m, s, m), 3),)
    # Without that, four times m would be a segment, the first of them cut off from what it reads.
    assert find_segments((s, m, m, m, m)) == (Segment((s, m), 1), Segment((m,), 3))
    with pytest.raises(InputError, match="the last sub-layer of a stack has aside = true"):
        find_segments((m, s))


def test_nothing_is_in_front_of_the_first_sublayer():
    with pytest.raises(InputError, match="the first sub-layer of a stack has parallel = true"):
        find_segments((parallel("a"), sublayer("b")))


def test_every_sublayer_has_its_own_place():
    pattern = tuple(map(sublayer, "am" * 3 + "ae" * 4))
    layout, found = find_segments(pattern), places(pattern)
    assert len(set(found)) == len(found) == 14
    for config, (path, _) in zip(pattern, found, strict=True):
        _, segment, place = path.split(".")
        assert layout[int(segment)].unit[int(place)] == config


def test_hundreds_of_layers_are_one_segment():
    assert find_segments(tuple(map(sublayer, "am" * 300))) == (Segment((sublayer("a"), sublayer("m")), 300),)
