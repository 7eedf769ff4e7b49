"""Experts and what they stand among, from files onto devices and back."""

import dataclasses
import logging

import jax
import numpy as np
import pytest
from hybrid import hybrid, paired, tensors_of
from jax.sharding import NamedSharding, PartitionSpec

from mjx.models.common.parameter import parameters_of
from mjx.models.family import abstract_model
from mjx.models.gpt import FAMILY
from mjx.models.huggingface import PretrainedModel, save, save_pretrained
from mjx.models.huggingface.tensor_files import open_tensors
from mjx.models.huggingface.tensor_writer import TensorWriter
from mjx.models.interop.load import load_parameters
from mjx.models.interop.tensor_layout import InMemory
from mjx.sharding import MeshConfig, build_mesh
from mjx.trees import flatten, unflatten

WORD = "*-" + "ME" * 3


def abstract(split: bool):
    """Experts over eight devices by their number and their features, the rest whole on each."""
    mesh = build_mesh(MeshConfig(fsdp=4, tensor=2))

    def placed(path, leaf):
        experts = split and ".moe." in path and not path.endswith("router")
        spec = PartitionSpec(None, "fsdp", None, "tensor") if experts else PartitionSpec()
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    shapes = flatten(parameters_of(abstract_model(hybrid(WORD))))
    return unflatten({path: placed(path, leaf) for path, leaf in shapes.items()})


@pytest.fixture
def written(tmp_path):
    """A folder of safetensors, and what is in them."""
    given = tensors_of(paired(WORD))
    sizes = {name: (tensor.shape, tensor.dtype) for name, tensor in given.items()}
    with TensorWriter(tmp_path, sizes, 4000) as writer:
        for name, tensor in given.items():
            writer.write(name, tensor)
    return tmp_path, given


@pytest.mark.parametrize("split", [False, True])
def test_experts_are_read_onto_the_devices_that_hold_them(written, split):
    folder, given = written
    names = paired(WORD)
    with open_tensors(folder) as tensors:
        loaded = flatten(load_parameters(names, tensors, abstract(split)))
    for path, expected in flatten(names.to_ours(given)).items():
        np.testing.assert_array_equal(loaded[path], expected, err_msg=path)


def test_an_expert_that_is_not_finite_is_named(written, caplog):
    _, given = written
    names = paired(WORD)
    given["layers.2.feed_forward.experts.3.w2.weight"][1, 2] = np.nan
    given["layers.0.self_attn.q_proj.weight"][0, 0] = np.inf
    with caplog.at_level(logging.WARNING, logger="mjx"):
        load_parameters(names, {name: InMemory(each) for name, each in given.items()}, abstract(True))
    (message,) = [record.getMessage() for record in caplog.records if "not finite" in record.getMessage()]
    assert message.startswith("2 of the checkpoint's tensors")
    assert "layers.2.feed_forward.experts.3.w2.weight" in message
    assert "layers.0.self_attn.q_proj.weight" in message


@pytest.mark.parametrize("split", [False, True])
def test_experts_are_written_as_they_were_read(written, split, tmp_path, monkeypatch):
    """`save_pretrained`, with an architecture that has these names; no family has experts here."""
    folder, given = written
    names = paired(WORD)
    architecture = dataclasses.replace(FAMILY.architectures[0], name_map=lambda config: names)
    monkeypatch.setattr(save, "fitting_architecture", lambda config, model_type: architecture)
    with open_tensors(folder) as tensors:
        parameters = load_parameters(names, tensors, abstract(split))
    config = FAMILY.published["gpt2-124m"]
    save_pretrained(PretrainedModel(config, parameters), tmp_path / "written")
    with open_tensors(tmp_path / "written") as tensors:
        assert set(tensors) == set(given)
        for name, expected in given.items():
            np.testing.assert_array_equal(tensors[name].read(), expected, err_msg=name)
