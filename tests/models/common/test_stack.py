import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from reference.decoder import stack as reference

from mjx.errors import InputError
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.context import Context
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.parameter import bind, flatten, logical_axes_of, parameters_of, unflatten
from mjx.models.common.pattern import Segment, SublayerConfig, find_segments, places
from mjx.models.common.stack import Stack

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


def parallel(letter: str) -> SublayerConfig:
    return dataclasses.replace(sublayer(letter), parallel=True)


def test_a_parallel_sublayer_stays_with_the_one_in_front():
    a, b = sublayer("a"), parallel("b")
    assert find_segments((a, b) * 6) == (Segment((a, b), 6),)
    # Without that, three times b would be a segment of its own.
    assert find_segments((a, b, b, b)) == (Segment((a, b, b, b), 1),)
    # Neither may the last of a repeated a take a b with it: (a) × 3, (a, b) × 1 it is.
    assert find_segments((a, a, a, a, b)) == (Segment((a,), 3), Segment((a, b), 1))
    assert find_segments((a, b, sublayer("c")) * 2 + (a, b) * 5)[0].unit == (a, b, sublayer("c"))


def test_nothing_is_in_front_of_the_first_sublayer():
    with pytest.raises(InputError, match="the first sub-layer of a stack has parallel = true"):
        find_segments((parallel("a"), sublayer("b")))


RMS = NormConfig(kind="rmsnorm")
PLACEMENTS = {
    "before": {"norm": RMS},
    "behind": {"norm": None, "output_norm": RMS},
    "both": {"norm": RMS, "output_norm": RMS},
    "none": {"norm": None},
    "before, parallel": {"norm": RMS, "parallel": True},
    "behind, parallel": {"norm": None, "output_norm": RMS, "parallel": True},
}


@pytest.mark.parametrize("remat", ["none", "full"])
@pytest.mark.parametrize("name", PLACEMENTS)
def test_norms_and_residuals_are_where_the_config_says(name, remat):
    """Three times a sub-layer and one that may be parallel."""
    options = PLACEMENTS[name]
    first = SublayerConfig(**{**options, "parallel": False}, mixer=MLPConfig(features=12, activation="relu"))
    second = SublayerConfig(**options, mixer=MLPConfig(features=20, activation="relu"))
    pattern = (first, second) * 3
    stack = Stack(pattern, 8, remat=remat, std=0.02, output_std=0.02, rngs=nnx.Rngs(params=jax.random.key(0)))
    random = np.random.RandomState(0)
    values = {
        path: random.randn(*leaf.shape).astype(np.float32) / 2
        for path, leaf in flatten(parameters_of(stack)).items()
    }
    x = random.randn(2, 4, 8).astype(np.float32)
    y, _ = bind(stack, unflatten(values))(jnp.asarray(x), Context())

    expected = reference(pattern, values, x)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    assert sum(value.size for value in values.values()) == sum(s.num_parameters(8) for s in pattern)


def test_every_sublayer_has_its_own_place():
    pattern = tuple(map(sublayer, "am" * 3 + "ae" * 4))
    layout, found = find_segments(pattern), places(pattern)
    assert len(set(found)) == len(found) == 14
    for config, (path, _) in zip(pattern, found, strict=True):
        _, segment, place = path.split(".")
        assert layout[int(segment)].unit[int(place)] == config


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
