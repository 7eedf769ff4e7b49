"""Recipes that the tests of plans compile."""

from pathlib import Path
from typing import Any

from mjx.plan.request import PlanRequest
from mjx.trees import to_yaml

LLAMA = {
    "family": "gpt",
    "num_layers": 4,
    "hidden_size": 1024,
    "vocab_size": 32768,
    "attention": {"num_heads": 16, "num_query_groups": 8, "rope": {"base": 10000.0}},
    "mlp": {"features": 2816, "activation": "silu", "gated": True},
    "norm": {"kind": "rmsnorm"},
    "remat": "full",
    "loss_chunks": 8,
}
"""Wide enough that what the closed forms leave out (vectors, scalars) is little, and quick to compile."""


def recipe(folder: Path, model: dict[str, Any] = LLAMA, **sections: Any) -> str:
    """A file; `sections` overrule those here."""
    tree = {
        "model": model,
        "data": {"corpus": "python-docs", "sequence_length": 2048},
        "training": {"steps": 10, "batch_size": 64},
        "mesh": {"data": 1, "fsdp": 16},
        "runtime": {"gpu_memory_fraction": 0.9},
    }
    path = folder / "recipe.yaml"
    path.write_text(to_yaml(tree | sections))
    return str(path)


def request(path: str, *overrides: str, nodes: int = 2, **options: Any) -> PlanRequest:
    """Of 16 H100, as a rule."""
    return PlanRequest(recipe=path, overrides=overrides, nodes=nodes, **options)
