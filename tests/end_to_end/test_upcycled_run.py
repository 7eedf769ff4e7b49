"""A dense model's folder, trained on with experts in the place of its MLPs."""

import jax
import numpy as np
import pytest
from flax import nnx
from running import changed, losses

from mjx.config import InferenceConfig, parse_config
from mjx.data.tokenizers import load_tokenizer
from mjx.errors import InputError
from mjx.models.common.parameter import parameters_of
from mjx.models.huggingface import PretrainedModel, save_pretrained
from mjx.parse import to_tree
from mjx.run.given import given_parameters
from mjx.run.imported import fill, new_run
from mjx.run.loop import build_trainer, train
from mjx.run.opened import open_model, read_inference_config
from mjx.source import open_source
from mjx.trees import flatten

EXPERTS = {"experts": 8, "top_k": 2, "mlp": {"features": 32}, "router": {"load_balancing_loss": 0.01}}
"""Halves of the 64 features of the MLP: four copies of each."""
MOE = "decoder.segments.0.3.moe"
"""Of the second layer, where every other one has experts."""


@pytest.fixture(scope="module")
def dense(tree):
    llama = {"attention__dropout": 0.0, "norm": {"kind": "rmsnorm"}, "dropout": 0.0}
    mlp = {"features": 64, "activation": "silu", "gated": True}
    model = changed({"model": tree["model"]}, **{f"model__{key}": value for key, value in llama.items()})
    return parse_config(changed(model, model__mlp=mlp), InferenceConfig).model


@pytest.fixture(scope="module")
def folders(dense, tmp_path_factory):
    """The same dense model as a run folder and as a Hugging Face folder; and its weights."""
    parameters = parameters_of(dense.build(nnx.Rngs(3)))
    path = tmp_path_factory.mktemp("dense")
    with new_run(str(path / "run")) as run:
        fill(run, dense, parameters, load_tokenizer("byte"))
    save_pretrained(
        PretrainedModel(dense, parameters), path / "llama", architecture="llama", max_positions=64
    )
    return path, parameters


@pytest.fixture
def recipe(tree, folders, tmp_path):
    """Of three steps from the dense run's weights; the model's section says the experts alone."""
    plain = changed(tree, training__steps=3, training__evaluation_rows=0, run_dir=str(tmp_path / "run"))
    plain["model"] = {"moe": EXPERTS, "moe_pattern": [False, True], "dtype": "float32"}
    return plain | {"init_from": str(folders[0] / "run")}


def test_it_trains_resumes_and_opens_as_an_ordinary_mixture(recipe, tmp_path):
    del recipe["model"]["moe_pattern"]
    config = parse_config(recipe)
    result = train(config)
    assert (result.step, result.finished) == (3, True)
    assert losses(tmp_path / "run")[1][1] < losses(tmp_path / "run")[0][1] + 0.1
    assert parse_config({**recipe, "training": {**recipe["training"], "steps": 5}}).model == config.model
    opened = open_model(str(tmp_path / "run"), read_inference_config(str(tmp_path / "run")))
    assert (opened.config.model, opened.step) == (config.model, 3)
    assert "decoder.segments.0.1.moe.router.kernel" in flatten(opened.parameters)


@pytest.mark.parametrize("kind", ["run", "llama"])
def test_weights_are_the_dense_ones_on_any_mesh_from_either_folder(recipe, dense, folders, kind):
    path, parameters = folders
    tree = changed(recipe, init_from=str(path / kind), mesh={"expert": 4, "tensor": 2})
    config = parse_config(tree)
    assert config.model.moe_layers == (False, True)
    assert (config.model.moe.mlp.features, config.model.mlp) == (32, dense.mlp)
    trainer = build_trainer(config)
    given = flatten(given_parameters(open_source(path / kind), trainer, seed=0).parameters)
    abstract = flatten(trainer.layout.abstract.parameters)
    assert {name: leaf.sharding for name, leaf in given.items()} == {
        name: leaf.sharding for name, leaf in abstract.items()
    }
    theirs = flatten(parameters)
    expert = np.asarray(given[f"{MOE}.experts.up.kernel"][0, 5])  # a second half
    np.testing.assert_array_equal(expert, theirs["decoder.segments.0.1.mlp.up.kernel"][1, :, 32:])
    kept = "decoder.segments.0.0.attention.query.kernel"
    np.testing.assert_array_equal(jax.device_get(given[kept][0]), theirs[kept][0])


def test_what_cannot_be_made_of_the_dense_model_is_refused(recipe):
    with pytest.raises(InputError, match=r"model.moe.mlp.features = 48 does not divide the 64 of the MLP"):
        parse_config(changed(recipe, model__moe__mlp__features=48))
    with pytest.raises(InputError, match=r"model.mlp.features = 32 differs from the model of init_from"):
        parse_config(changed(recipe, model__mlp={"features": 32}))
    with pytest.raises(InputError, match=r"model.num_layers = 3 differs from the model of init_from"):
        parse_config(changed(recipe, model__num_layers=3))


def test_without_dense_layers_no_mlp_is_left_and_whole_ones_are_the_default(recipe, dense):
    recipe["model"] = {"moe": {"experts": 4, "top_k": 2}}
    model = parse_config(recipe).model
    assert model.mlp is None
    assert model.moe.mlp == dense.mlp
    assert to_tree(model)["moe"]["experts"] == 4
