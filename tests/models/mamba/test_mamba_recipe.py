"""The small recipe of a hybrid: as large as the GPT's, and nothing else about it differs."""

from pathlib import Path

import pytest

from mjx.config import load_config
from mjx.parse import to_tree
from mjx.trees import flatten

CONFIGS = Path(__file__).parents[3] / "configs"


def test_it_is_as_large_as_the_gpts_and_differs_in_the_model_alone():
    hybrid, gpt = (load_config(CONFIGS / name) for name in ("mamba/docs-hybrid.yaml", "gpt/docs.yaml"))
    assert hybrid.model.num_parameters() == pytest.approx(gpt.model.num_parameters(), rel=0.05)
    one, other = (flatten(to_tree(config)) for config in (hybrid, gpt))
    differing = {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}
    assert {key for key in differing if not key.startswith("model.")} == {"run_dir"}
