"""The example of a mixer from outside of the package: it trains, on any mesh."""

import sys
from pathlib import Path

import pytest

from mjx.sharding import MeshConfig

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_a_mixer_of_ones_own_trains_and_gives_the_same_losses_on_a_mesh(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import own_mixer

    losses = own_mixer.main(steps=30)
    assert losses[-1] < losses[0] - 2
    split = own_mixer.main(steps=6, mesh=MeshConfig(data=2, fsdp=2, tensor=2))
    assert split == pytest.approx(losses[:6], rel=2e-5)
    sys.modules.pop("own_mixer")
