"""Makes published.json: `python tests/goldens/layouts/make_goldens.py`, when a size joins the published ones.

Per family and size: the segments of each of its stacks, in letters (one for each kind of sub-layer, in the
order of their first appearance), and a digest of every parameter's path and shape. Both are the format of
the checkpoints that exist: no entry ever changes.
"""

import hashlib
import json
import string
from pathlib import Path

import jax
from flax import nnx

from mjx import models
from mjx.models.common.parameter import parameters_of
from mjx.models.common.stack import Stack
from mjx.models.family import load_family
from mjx.trees import flatten

GOLDENS = Path(__file__).with_name("published.json")


def segments(stack: Stack) -> list[list]:
    """[letters of the unit, repeats] of each."""
    kinds = dict.fromkeys(sublayer for segment in stack.layout for sublayer in segment.unit)
    letters = dict(zip(kinds, string.ascii_letters, strict=False))
    return [["".join(letters[kind] for kind in segment.unit), segment.repeats] for segment in stack.layout]


def layout_of(config) -> dict:
    model = jax.eval_shape(lambda: config.build(nnx.Rngs(0)))
    shapes = [f"{path} {list(leaf.shape)}\n" for path, leaf in sorted(flatten(parameters_of(model)).items())]
    stacks = {
        ".".join(map(str, path)): segments(module)
        for path, module in nnx.iter_modules(model)
        if isinstance(module, Stack)
    }
    return {"stacks": stacks, "parameters": hashlib.sha256("".join(shapes).encode()).hexdigest()[:16]}


if __name__ == "__main__":
    kept = json.loads(GOLDENS.read_text()) if GOLDENS.exists() else {}
    lines = []
    for family in models.FAMILIES:
        for size, config in load_family(family).published.items():
            name = f"{family}/{size}"
            lines.append(f'  "{name}": {json.dumps(kept.get(name) or layout_of(config))}')
    GOLDENS.write_text("{\n" + ",\n".join(lines) + "\n}\n")
