import jax
import pytest
from flax import nnx

from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.parameter import flatten, logical_axes_of, parameters_of
from mjx.models.common.stack import Segment, Stack, SublayerConfig, find_segments, locate

NORM = NormConfig()


def sublayer(letter: str) -> SublayerConfig:
    """Each letter is a kind of sub-layer of its own."""
    return SublayerConfig(mixer=MLPConfig(features=ord(letter)), norm=NORM)


def segments(word: str) -> list[tuple[str, int]]:
    found = find_segments(tuple(map(sublayer, word)))
    return [("".join(chr(s.mixer.features) for s in segment.unit), segment.repeats) for segment in found]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("am" * 48, [("am", 48)]),
        ("am" * 3 + "ae" * 58, [("am", 3), ("ae", 58)]),
        ("wmam" * 12, [("wmam", 12)]),
        ("wm" * 5 + "am", [("wm", 5), ("am", 1)]),
        (("wm" * 5 + "am") * 4 + "wm" * 2, [("wmwmwmwmwmam", 4), ("wm", 2)]),
        ("a", [("a", 1)]),
        ("abc", [("abc", 1)]),
        ("aaaa", [("a", 4)]),
    ],
)
def test_the_pattern_is_cut_into_repeated_units(pattern, expected):
    found = segments(pattern)
    assert "".join(unit * repeats for unit, repeats in found) == pattern
    assert sum(len(unit) for unit, _ in found) <= sum(len(unit) for unit, _ in expected)
    assert len(found) <= len(expected) or pattern.startswith("wm" * 5 + "am" + "w")


def test_every_sublayer_has_its_own_place():
    layout = find_segments(tuple(map(sublayer, "am" * 3 + "ae" * 4)))
    places = [locate(layout, i) for i in range(14)]
    assert len(set(places)) == 14
    for i, (segment, position, _) in enumerate(places):
        assert chr(layout[segment].unit[position].mixer.features) == ("am" * 3 + "ae" * 4)[i]
    with pytest.raises(IndexError):
        locate(layout, 14)


def test_parameters_are_stacked_with_the_layers_first():
    pattern = (
        SublayerConfig(mixer=AttentionConfig(num_heads=2).resolve(8), norm=NORM),
        SublayerConfig(mixer=MLPConfig(features=16), norm=NORM),
    ) * 5
    stack = Stack(pattern, 8, std=0.02, output_std=0.01, rngs=nnx.Rngs(params=jax.random.key(0)))
    shapes = {name: leaf.shape for name, leaf in flatten(parameters_of(stack)).items()}
    assert shapes["segments.0.0.attention.query.kernel"] == (5, 8, 2, 4)
    assert flatten(logical_axes_of(stack))["segments.0.1.mlp.up.kernel"] == ("layers", "embed", "mlp")
    query = flatten(parameters_of(stack))["segments.0.0.attention.query.kernel"]
    assert len({float(layer[0, 0, 0]) for layer in query}) == 5, "each layer draws its own numbers"


def test_segments_are_found_fast_for_hundreds_of_layers():
    import time

    start = time.perf_counter()
    assert find_segments(tuple(map(sublayer, "am" * 300))) == (Segment((sublayer("a"), sublayer("m")), 300),)
    assert time.perf_counter() - start < 5
