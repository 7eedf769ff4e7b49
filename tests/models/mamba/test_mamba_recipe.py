"""The small recipes: as large as the GPT's, and nothing else about them differs."""

from pathlib import Path

import pytest

from mjx.config import load_config
from mjx.parse import to_tree
from mjx.trees import flatten

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.mark.parametrize("name", ["docs-mamba2", "docs-hybrid"])
def test_it_is_as_large_as_the_gpts_and_differs_in_the_model_alone(name):
    ours, gpt = (load_config(CONFIGS / path) for path in (f"mamba/{name}.yaml", "gpt/docs.yaml"))
    assert ours.model.num_parameters() == pytest.approx(gpt.model.num_parameters(), rel=0.05)
    one, other = (flatten(to_tree(config)) for config in (ours, gpt))
    differing = {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}
    assert {key for key in differing if not key.startswith("model.")} == {"run_dir"}
