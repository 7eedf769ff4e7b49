"""The parameters that a run starts with, of a model that was trained before."""

import jax
import numpy as np

from mjx.models.common.parameter import abstract_parameters
from mjx.models.family import ModelConfig, abstract_model
from mjx.parse import parse, to_tree
from mjx.source import Source
from mjx.training.trainer import Trainer
from mjx.trees import Tree, flatten, merge, unflatten


def given_parameters(source: Source, trainer: Trainer, seed: int) -> Tree:
    """Those of the source, in float32; where the trainer's model has experts and the source's has MLPs, with
    experts made of them, for which `seed` draws the routers.

    Raises:
        InputError: a file is damaged, or the weights are of another model.
    """
    model, abstract = trainer.config, trainer.layout.abstract.parameters
    theirs = _with_choices_of(model, parse(ModelConfig, source.recipe()["model"], "model"))
    make = model.upcycling(theirs) if type(theirs) is type(model) else None
    if make is None:
        return source.load(model, abstract, dtype=np.float32)[0]
    with trainer.on_mesh():
        given = abstract_parameters(abstract_model(theirs), trainer.mesh, trainer.rules)
        parameters, _ = source.load(theirs, given, dtype=np.float32)
        places = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        return jax.jit(make, out_shardings=places)(parameters, jax.random.key(seed))


def _with_choices_of(model: ModelConfig, theirs: ModelConfig) -> ModelConfig:
    """The source's model, with what a run may choose as `model` has it."""
    tree, chosen = to_tree(theirs), flatten(to_tree(model))
    known = flatten(tree)
    free = [name for name in type(model).training_choices if name in known and name in chosen]
    return parse(ModelConfig, merge(tree, unflatten({name: chosen[name] for name in free})), "model")
