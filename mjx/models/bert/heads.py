"""An encoder that was trained before, with heads of another task."""

from collections.abc import Mapping
from typing import Any

from mjx.trees import Tree, plain

_FIELDS = ("classes", "labels", "contrastive", "pooling", "pooler", "head_transform")
"""What a recipe may say of the heads of a task."""


def reheaded_tree(given: Tree, section: Mapping[str, Any]) -> Tree | None:
    """`given`, a config's tree, with the heads of the task that a recipe's section names: `classes` or
    `contrastive`; None: it names none, or those that are there.

    The head of tokens is left out. A classifier stands behind a pooler where norms stand behind sub-layers
    (the first BERT, RoBERTa) or there is a pooler; else behind the layer that was in front of the head of
    tokens, or one of its kind (ModernBERT).
    """
    asked = {name: plain(section[name]) for name in _FIELDS if name in section}
    if asked.get("classes") is None and asked.get("contrastive") is None:
        return None
    tree = {**given, "sentence_head": False, "head_bias": False, "tie_embeddings": True}
    transform = given["head_transform"]
    if asked.get("contrastive") is not None:
        tree |= {"classes": None, "labels": [], "head_transform": None}
    elif given["norm_placement"] == "residual" or given["pooler"]:
        tree |= {"contrastive": None, "pooler": True, "head_transform": None}
    else:
        norm = given["norm"]
        like_layers = {"activation": "gelu", "norm": norm, "bias": norm["bias"]}
        tree |= {"contrastive": None, "head_transform": transform or like_layers}
    if asked.get("classes") != given["classes"]:
        tree["labels"] = []
    tree |= asked
    return None if tree == given else tree
