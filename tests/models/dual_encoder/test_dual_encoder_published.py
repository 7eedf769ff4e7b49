"""The sizes of known models have the numbers of parameters of their files."""

import pytest

from mjx.models.dual_encoder import FAMILY

PARAMETERS = {
    "clip-vit-base-patch32": 151_277_313,
    "clip-vit-base-patch16": 149_620_737,
    "clip-vit-large-patch14": 427_616_513,
    "clip-vit-large-patch14-336": 427_944_193,
    "siglip-base-patch16-224": 203_155_970,
    "siglip-large-patch16-256": 652_150_786,
    "siglip-so400m-patch14-384": 877_960_498,
    "siglip2-base-patch16-224": 375_187_970,
}


def test_every_size_is_counted():
    assert PARAMETERS.keys() == FAMILY.published.keys()


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_published_size_has_the_parameters_of_its_files(name):
    assert FAMILY.published[name].num_parameters() == PARAMETERS[name]
