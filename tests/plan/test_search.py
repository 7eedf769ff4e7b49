"""`mjx plan --search` finds what is fastest among what fits, and compiles only the best."""

import dataclasses
import itertools
import json
import math

import pytest
from planning import LLAMA, recipe, request

from mjx.cli import main
from mjx.errors import InputError
from mjx.plan import search as searching
from mjx.plan.advice import advice
from mjx.plan.apart import CompilerDiedError, plan
from mjx.plan.estimate import estimate
from mjx.plan.search import candidates, search

LLAMA3 = {"family": "gpt", "preset": "llama3-8b", "loss_chunks": 16}
LONG = {"corpus": "python-docs", "sequence_length": 8192}


def test_every_way_that_divides_is_a_candidate(tmp_path):
    path = recipe(tmp_path, mesh={"data": 1, "fsdp": 8})
    found = candidates(request(path, "training.batch_size=16", nodes=1))
    ways = {(c.mesh["data"], c.mesh["fsdp"], c.mesh["tensor"], c.microbatches, c.remat) for c in found}
    assert len(ways) == len(found)
    meshes = {way[:3] for way in ways}
    assert meshes == {way for way in itertools.product((1, 2, 4, 8), repeat=3) if math.prod(way) == 8}
    assert {way[3] for way in ways if way[:3] == (1, 8, 1)} == {1, 2}
    assert {way[3] for way in ways if way[:3] == (1, 1, 8)} == {1, 2, 4, 8, 16}
    assert {way[4] for way in ways} == {"none", "selective", "full"}


def test_a_batch_that_divides_over_no_mesh_is_refused(tmp_path):
    path = recipe(tmp_path, LLAMA | {"attention": {"num_heads": 15, "head_dim": 64}})
    with pytest.raises(InputError, match="no mesh of 7 GPUs fits the recipe"):
        candidates(request(path, "training.batch_size=3", nodes=1, gpus_per_node=7))


def test_rows_are_split_where_there_are_fewer_than_devices_or_the_recipe_splits_them(tmp_path):
    def contexts(*overrides):
        path = recipe(tmp_path, mesh={"data": 1, "fsdp": -1})
        found = candidates(request(path, *overrides, nodes=1))
        return {candidate.mesh["context"] for candidate in found}

    assert contexts("training.batch_size=8") == {1}
    assert contexts("training.batch_size=4") == {1, 2, 4, 8}
    assert contexts("training.batch_size=8", "mesh.context=2", "mesh.fsdp=4") == {1, 2, 4, 8}


def test_an_axis_that_is_kept_has_to_be_a_number(tmp_path):
    with pytest.raises(InputError, match=r"mesh\.expert = -1: a search keeps it"):
        candidates(request(recipe(tmp_path, mesh={"data": 1, "fsdp": 8, "expert": -1})))


def test_only_what_fits_by_the_closed_form_is_compiled_and_what_dies_is_passed_over(tmp_path, monkeypatch):
    path = recipe(tmp_path, LLAMA3, data=LONG, training={"steps": 1, "batch_size": 64})
    asked = request(path, nodes=1)
    tried = []

    def die(wanted):
        tried.append(wanted)
        raise CompilerDiedError("the compiler was ended by SIGABRT")

    monkeypatch.setattr(searching, "plan", die)
    found = search(asked, compiled=2, workers=1)
    assert len(tried) == 4, "twice as many as were to be compiled"
    assert all(result.candidate.estimate.fits for result in found.results)
    assert {result.failure for result in found.results} == {"the compiler was ended by SIGABRT"}
    order = [candidate.estimate.time.estimate for candidate in found.candidates]
    assert order == sorted(order)
    assert [wanted.overrides for wanted in tried] == [c.overrides for c in found.fitting[:4]]
    assert len(found.fitting) < len(found.candidates)


@pytest.mark.gpu_compile
def test_a_search_of_an_8b_model_names_what_is_fastest_and_fits(tmp_path, capsys):
    path = recipe(tmp_path, LLAMA3, data=LONG, mesh={"data": 1, "fsdp": 8})
    files = ["--json", f"{tmp_path}/s.json", "--html", f"{tmp_path}/s.html"]
    arguments = ["--nodes", "1", "--search", "--compile", "3", "--products", "cublas", *files]
    main(["plan", path, *arguments, "training.batch_size=64"])
    printed = capsys.readouterr().out
    assert "fastest that fits: mesh.data=-1 mesh.fsdp=" in printed
    tree = json.loads((tmp_path / "s.json").read_text())
    assert len(tree["candidates"]) >= 64
    fitting = [c["plan"]["summary"] for c in tree["compiled"] if c["plan"]["summary"]["fits"]]
    times = [summary["step_seconds"] for summary in fitting]
    assert len(times) >= 2
    assert times == sorted(times)
    page = (tmp_path / "s.html").read_text()
    assert "<svg" in page
    assert all("product by cublas" in text for text in (printed, page))


@pytest.mark.gpu_compile
@pytest.mark.parametrize(
    "overrides",
    [
        ("mesh.fsdp=16", "model.remat=none"),
        ("mesh.fsdp=2", "mesh.tensor=8", "model.remat=full"),
        ("mesh.fsdp=4", "mesh.data=4", "model.remat=selective", "training.microbatches=2"),
    ],
)
def test_the_estimate_is_near_what_is_compiled(overrides, tmp_path):
    wide = LLAMA | {"hidden_size": 2048, "mlp": LLAMA["mlp"] | {"features": 5632}}
    path = recipe(tmp_path, wide, training={"steps": 1, "batch_size": 128})
    asked = request(path, *overrides, products="cublas")
    guessed, made = estimate(asked.load(), asked), plan(asked)
    assert guessed.parameters == pytest.approx(made.memory.parameters, rel=0.01)
    assert guessed.optimizer == pytest.approx(made.memory.optimizer, rel=0.01)
    assert guessed.step.temporary == pytest.approx(made.memory.allocated, rel=0.25)
    assert guessed.time.compute == pytest.approx(made.time.compute, rel=0.1)
    sent = made.time.node + made.time.network
    assert guessed.time.node + guessed.time.network == pytest.approx(sent, rel=0.1)


@pytest.mark.gpu_compile
def test_advice_names_changes_that_really_help(tmp_path):
    path = recipe(tmp_path, training={"steps": 1, "batch_size": 1024})
    asked = request(path, "model.remat=none", "runtime.gpu_memory_fraction=0.05", products="cublas")
    made = plan(asked)
    assert not made.memory.fits
    said = advice(made, asked)
    changes = [sentence.partition(" would need")[0].split() for sentence in said if " would need" in sentence]
    changes = [change for change in changes if change[0].startswith("model.remat")]
    assert changes, said
    changed = plan(dataclasses.replace(asked, overrides=(*asked.overrides, *changes[-1])))
    assert changed.memory.needed < made.memory.needed
    assert changed.memory.fits
