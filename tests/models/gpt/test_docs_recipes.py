"""The small recipes: a dense model, and a mixture of experts that a token uses as much of."""

from pathlib import Path

from mjx.config import load_config
from mjx.parse import to_tree
from mjx.trees import flatten

CONFIGS = Path(__file__).parents[3] / "configs" / "gpt"


def test_a_token_uses_as_much_of_the_mixture_as_of_the_dense_model_and_a_router():
    dense, mixture = (load_config(CONFIGS / name).model for name in ("docs.yaml", "docs-moe.yaml"))
    # A table; a layer's two norms, four square projections, three of the MLP; the last norm.
    assert dense.num_parameters() == 2048 * 192 + 3 * (2 * 192 + 4 * 192**2 + 3 * 192 * 512) + 192
    assert dense.num_active_parameters() == dense.num_parameters()
    # Two experts of 256 features are as much as 512 features; and a logit for each of eight.
    assert mixture.num_active_parameters() == dense.num_parameters() + 3 * 192 * 8
    # The other six wait.
    assert mixture.num_parameters() == mixture.num_active_parameters() + 3 * 6 * 3 * 192 * 256
    assert mixture.num_parameters() == 4_380_480


def test_they_differ_in_experts_alone_and_in_the_rate_of_the_router():
    dense, mixture = (flatten(to_tree(load_config(CONFIGS / n))) for n in ("docs.yaml", "docs-moe.yaml"))
    differing = {key for key in dense.keys() | mixture.keys() if dense.get(key) != mixture.get(key)}
    assert {key for key in differing if not key.startswith(("model.mlp", "model.moe"))} == {
        "run_dir",
        *(f"optimizer.groups.*.router.kernel.{name}" for name in ("rate", "frozen")),
    }
