"""The contract, for every family."""

import pytest

from families.contract import ALL, hold
from families.variants.variant import NotApplicableError


@pytest.mark.parametrize(
    ("variant", "check"),
    [
        pytest.param(variant, name, id=f"{variant.config.family}: {variant.name}: {name}")
        for variant, name in ALL
    ],
)
def test_every_family_keeps_the_contract(variant, check):
    try:
        hold(variant, check)
    except NotApplicableError as reason:
        pytest.skip(str(reason))
