"""Checks of what is said of a model without running it: names, counts, FLOPs, tables, plans."""

import io
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import jax
import numpy as np
from matmul_flops import matmul_flops

from families.numbers import parameters
from families.variants.variant import NotApplicableError, Variant
from mjx.cli import main
from mjx.models.common.parameter import logical_axes_of, parameters_of
from mjx.models.family import abstract_model, load_family
from mjx.models.interop.architectures import find_architecture, fitting_architecture
from mjx.models.interop.megatron.settings import read_settings, settings_of
from mjx.models.interop.name_map import NameMap
from mjx.plan.apart import plan
from mjx.plan.request import PlanRequest
from mjx.trees import flatten, to_yaml


def parameter_count(variant: Variant) -> None:
    """The count is that by hand, and that of the arrays without the vocabulary's padding."""
    config = variant.config
    assert config.num_parameters() == variant.num_parameters
    assert _arrays_with_padding(variant) - _padding(variant) == variant.num_parameters


def flops(variant: Variant) -> None:
    """The config's FLOPs are those of the matrix products in a trace of the loss."""
    config, batch, model = variant.config, variant.batch(0), abstract_model(variant.config)
    counts = model.counts(batch)
    traced = matmul_flops(lambda model: model.loss(batch, counts)[0], model)
    computed = traced - variant.flops_not_counted()
    np.testing.assert_allclose(config.flops(variant.arrays()) / 3, computed, rtol=1e-9)


def huggingface(variant: Variant) -> None:
    """Config and weights survive the way to Hugging Face and back, to the byte."""
    if variant.huggingface is None:
        raise NotApplicableError("transformers has no such model")
    config = variant.config
    architecture = fitting_architecture(config, variant.huggingface)
    written = architecture.config.to_theirs(config) | {
        "model_type": architecture.model_type,
        "architectures": [architecture.class_name],
    }
    assert find_architecture(written) == (config.family, architecture)
    returned = architecture.config.to_ours(written, "config.json")
    assert architecture.canonical(returned) == architecture.canonical(config)
    _assert_there_and_back(variant, architecture.name_map(config))


def megatron(variant: Variant) -> None:
    """Config and weights survive the way to Megatron-Core and back, to the byte."""
    known = load_family(variant.config.family).megatron
    if known is None or not variant.megatron:
        raise NotApplicableError("Megatron-Core has no such model")
    family, returned = read_settings(settings_of(variant.config), "Megatron-LM")
    assert family == variant.config.family
    assert known.canonical(returned) == known.canonical(variant.config)
    _assert_there_and_back(variant, known.name_map(variant.config))


def explanation(variant: Variant) -> None:
    """`mjx explain` names every parameter, and the activations."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()) as said:
        main(["explain", _recipe(variant, folder), "mesh.tensor=2", "--devices", "8", "--activations"])
    assert f"{variant.num_parameters:,} parameters" in said.getvalue()
    for path in flatten(parameters_of(abstract_model(variant.config))):
        assert path in said.getvalue()


def planning(variant: Variant) -> None:
    """`mjx plan` compiles its step, and says its work and memory."""
    with tempfile.TemporaryDirectory() as folder:
        made = plan(PlanRequest(recipe=_recipe(variant, folder), gpus_per_node=2, compiler="cpu"))
    assert made.parameters == variant.num_parameters
    assert made.memory.parameters >= 4 * variant.num_parameters


def _recipe(variant: Variant, folder: str) -> str:
    path = Path(folder, "recipe.yaml")
    path.write_text(to_yaml(variant.recipe()))
    return str(path)


def _arrays_with_padding(variant: Variant) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(parameters_of(abstract_model(variant.config))))


def _padding(variant: Variant) -> int:
    """Numbers in rows of tables that no token has."""
    model = abstract_model(variant.config)
    axes, shapes = flatten(logical_axes_of(model)), flatten(parameters_of(model))
    padding = 0
    for path, names in axes.items():
        if "vocab" in names:
            rows = shapes[path].shape[names.index("vocab")]
            padding += shapes[path].size // rows * (rows - (variant.config.vocabulary or rows))
    return padding


def _assert_there_and_back(variant: Variant, names: NameMap) -> None:
    ours = parameters(variant)
    theirs = names.to_theirs(ours)
    returned = names.to_ours(theirs)
    differing = 0
    for path, leaf in flatten(ours).items():
        changed = flatten(returned)[path].view(np.uint32) != leaf.view(np.uint32)
        assert not flatten(returned)[path][changed].any(), path  # what pads a table comes back as zeros
        differing += changed.sum()
    assert differing == _padding(variant)
    again = names.to_theirs(returned)
    assert again.keys() == theirs.keys() == names.theirs.keys()
    assert not [name for name in theirs if again[name].tobytes() != theirs[name].tobytes()]
