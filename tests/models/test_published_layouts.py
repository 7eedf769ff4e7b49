"""Published models have the segments and the parameters that their checkpoints have (goldens/layouts)."""

import json

import pytest
from goldens.layouts.make_goldens import GOLDENS, layout_of

from mjx import models
from mjx.models.family import load_family

LAYOUTS = json.loads(GOLDENS.read_text())
PUBLISHED = {
    f"{family}/{size}": config
    for family in models.FAMILIES
    for size, config in load_family(family).published.items()
}


def test_every_published_size_has_a_golden_layout():
    assert list(LAYOUTS) == list(PUBLISHED), "python tests/goldens/layouts/make_goldens.py adds new sizes"


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_layout_is_that_of_the_checkpoints_that_exist(name):
    assert layout_of(PUBLISHED[name]) == LAYOUTS[name]
