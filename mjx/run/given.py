"""The parameters that a run starts with, of a model that was trained before."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from mjx.models.common.parameter import abstract_parameters, parameters_of
from mjx.models.family import ModelConfig, abstract_model
from mjx.parse import parse, to_tree
from mjx.source import Source
from mjx.training.trainer import Trainer
from mjx.trees import Tree, flatten, merge, unflatten


class Given(NamedTuple):
    """What a run starts with."""

    parameters: Tree
    said: tuple[str, ...] = ()
    """What is new in it, and what of the source is not there."""


def given_parameters(source: Source, trainer: Trainer, seed: int) -> Given:
    """Those of the source, in float32. Where the trainer's model has experts and the source's has MLPs, with
    experts made of them; where it has other heads, with new ones. `seed` draws routers and heads.

    Raises:
        InputError: a file is damaged, or the weights are of another model.
    """
    model, abstract = trainer.config, trainer.layout.abstract.parameters
    theirs = _with_choices_of(model, parse(ModelConfig, source.recipe()["model"], "model"))
    if type(theirs) is not type(model):
        return Given(source.load(model, abstract, dtype=np.float32)[0])
    make = model.upcycling(theirs)
    if make is None and not _has_other_heads(model, theirs):
        return Given(source.load(model, abstract, dtype=np.float32)[0])
    with trainer.on_mesh():
        given = abstract_parameters(abstract_model(theirs), trainer.mesh, trainer.rules)
        places = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        if make is not None:
            parameters, _ = source.load(theirs, given, dtype=np.float32)
            return Given(jax.jit(make, out_shardings=places)(parameters, jax.random.key(seed)))
        optional = [path for path in flatten(given) if _of_head(model, path)]
        parameters, _ = source.load(theirs, given, dtype=np.float32, optional=optional)
        kept = _kept(model, theirs, flatten(parameters))

        def complete(kept: Mapping[str, jax.Array], key: jax.Array) -> Tree:
            drawn = flatten(parameters_of(model.build(nnx.Rngs(params=key))))
            return unflatten({**drawn, **kept})

        whole = jax.jit(complete, out_shardings=places)(kept, jax.random.key(seed))
    new = [path for path in flatten(abstract) if path not in kept]
    left = [path for path in flatten(parameters) if path not in kept]
    said = [f"new, drawn by training.seed: {', '.join(new)}"] if new else []
    said += [f"left out of {source.path}: {', '.join(left)}"] if left else []
    return Given(whole, tuple(said))


def _of_head(model: ModelConfig, path: str) -> bool:
    return path.partition(".")[0] in model.heads


def _kept(model: ModelConfig, theirs: ModelConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    """What of a source's parameters those of the model begin with."""
    ours, other = flatten(parameters_of(abstract_model(model))), model.other_heads(theirs)
    return {
        path: leaf
        for path, leaf in given.items()
        if path in ours and leaf.shape == ours[path].shape and path.partition(".")[0] not in other
    }


def _has_other_heads(model: ModelConfig, theirs: ModelConfig) -> bool:
    """Whether the two differ, in nothing but heads."""
    ours, given = (flatten(parameters_of(abstract_model(config))) for config in (model, theirs))
    kept = _kept(model, theirs, given)
    different = [path for path in {**ours, **given} if path not in kept]
    return bool(different) and all(_of_head(model, path) for path in different)


def _with_choices_of(model: ModelConfig, theirs: ModelConfig) -> ModelConfig:
    """The source's model, with what a run may choose as `model` has it."""
    tree, chosen = to_tree(theirs), flatten(to_tree(model))
    known = flatten(tree)
    free = [name for name in type(model).training_choices if name in known and name in chosen]
    return parse(ModelConfig, merge(tree, unflatten({name: chosen[name] for name in free})), "model")
