"""Weights alone: one folder, complete or absent, that Orbax reads without mjx."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mjx.checkpoint import orbax_store
from mjx.checkpoint.weights import load_weights, save_weights
from mjx.errors import InputError


def make_params(width: int = 8):
    return nnx.split(nnx.Linear(4, width, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0)), nnx.Param)[1]


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def test_weights_come_back_bit_for_bit_with_the_config_beside_them(tmp_path):
    params = make_params()
    save_weights(tmp_path / "out" / "gpt", params, {"model": {"width": 8}})
    loaded = load_weights(tmp_path / "out" / "gpt", abstract(params))
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(params), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert json.loads((tmp_path / "out" / "gpt" / "config.yaml").read_text()) == {"model": {"width": 8}}
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["gpt"]


def test_orbax_alone_reads_them_as_numpy_arrays(tmp_path):
    from orbax.checkpoint.experimental import v1 as ocp

    params = make_params()
    save_weights(tmp_path / "w", params, "model: {}\n")
    loaded = ocp.load(tmp_path / "w")
    assert sorted(loaded) == ["bias", "kernel"]
    assert isinstance(loaded["kernel"], np.ndarray)
    assert loaded["kernel"].tobytes() == np.asarray(params["kernel"][...]).tobytes()
    assert (tmp_path / "w" / "config.yaml").read_text() == "model: {}\n"


def test_weights_are_loaded_in_the_type_that_is_asked_for(tmp_path):
    params = {"w": jnp.arange(5.0)}
    save_weights(tmp_path / "w", params, {})
    loaded = load_weights(tmp_path / "w", {"w": jax.ShapeDtypeStruct((5,), jnp.bfloat16)})
    assert loaded["w"].dtype == jnp.bfloat16
    assert np.all(loaded["w"] == np.arange(5))


def test_an_empty_folder_is_taken_and_any_other_thing_is_not_overwritten(tmp_path):
    (tmp_path / "empty").mkdir()
    save_weights(tmp_path / "empty", make_params(), {})
    with pytest.raises(InputError, match="empty exists and is not an empty folder"):
        save_weights(tmp_path / "empty", make_params(), {})
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file exists and is not an empty folder"):
        save_weights(tmp_path / "file", make_params(), {})
    assert (tmp_path / "file").read_text() == "mine"


def test_what_a_killed_export_left_does_not_hinder_the_next(tmp_path):
    for name in (".w.partial", f".w.partial{orbax_store.UNFINISHED_SUFFIX}"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "junk").write_text("x")
    save_weights(tmp_path / "w", make_params(), {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["w"]
    load_weights(tmp_path / "w", abstract(make_params()))


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(InputError, match=r"The weights .*w needs? 80 bytes in"):
        save_weights(tmp_path / "w", make_params(), {})
    assert not list(tmp_path.iterdir())


def test_weights_of_another_model_are_refused_by_name(tmp_path):
    save_weights(tmp_path / "w", make_params(), {})
    with pytest.raises(InputError, match=r"kernel is bfloat16\[4,8\] there, bfloat16\[4,16\] here"):
        load_weights(tmp_path / "w", abstract(make_params(16)))
    with pytest.raises(InputError, match="no such folder"):
        load_weights(tmp_path / "x", abstract(make_params()))
