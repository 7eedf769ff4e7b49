"""Published sizes have the parameters that their models are known to have."""

import pytest

from mjx.models.mamba import PUBLISHED

PARAMETERS = {
    "mamba-130m": 129_135_360,
    "mamba-2.8b": 2_768_345_600,
    "mamba2-130m": 128_989_632,
    "mamba2-1.3b": 1_343_757_312,
    "mamba2-2.7b": 2_702_599_680,
    "falcon-mamba-7b": 7_272_665_088,
    "mamba2-hybrid-8b": 8_654_517_248,
    "nemotron-h-8b": 8_100_852_736,
    "nemotron-h-56b": 56_324_350_464,
    "nemotron-h-47b": 46_791_554_816,
    "zamba2-1.2b": 1_215_064_704,
    "zamba2-2.7b": 2_662_214_560,
    "zamba2-7b": 7_356_749_648,
    "falcon-h1-0.5b": 521_411_104,
    "granite-4.0-h-micro": 3_191_396_096,
    "granite-4.0-h-tiny": 6_939_037_248,
    "granite-4.0-h-small": 32_207_337_984,
    "nemotron-nano-9b-v2": 8_888_227_328,
    "nemotron3-nano": 31_577_937_344
    + 23 * 128,  # with the experts' biases, which are no parameters elsewhere
    "jamba-v0.1": 51_570_323_328,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_published_size_has_its_number_of_parameters(name):
    assert PUBLISHED[name].num_parameters() == PARAMETERS[name]


FALCON_H1 = {"0.5b": 0.52, "1.5b": 1.55, "1.5b-deep": 1.55, "3b": 3.15, "7b": 7.59, "34b": 33.6}
"""In billions, as published."""


@pytest.mark.parametrize("size", FALCON_H1)
def test_sizes_of_falcon_h1_are_those_that_are_published(size):
    parameters = PUBLISHED[f"falcon-h1-{size}"].num_parameters()
    assert parameters / 1e9 == pytest.approx(FALCON_H1[size], abs=0.05 if size == "34b" else 5.1e-3)


def test_a_hybrid_has_the_sub_layers_that_its_paper_counts():
    symbols = PUBLISHED["mamba2-hybrid-8b"].symbols
    assert [symbols.count(symbol) for symbol in "M*-"] == [24, 4, 28]
    nano = PUBLISHED["nemotron3-nano"]
    assert [nano.symbols.count(symbol) for symbol in "M*E"] == [23, 6, 23]
    assert nano.num_active_parameters() == pytest.approx(3.6e9, rel=0.01)
    granite = PUBLISHED["granite-4.0-h-small"]
    assert [granite.symbols.count(symbol) for symbol in "M*E"] == [36, 4, 40]
    assert granite.num_active_parameters() == pytest.approx(9e9, rel=0.03)
