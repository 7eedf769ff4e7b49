"""The ragged all-to-all is tried out before it is trusted."""

import jax
import pytest

from mjx.batch import token_batch
from mjx.errors import InputError
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.moe import DispatchConfig, MoEConfig, exchange
from mjx.models.gpt import GPTConfig
from mjx.sharding import MeshConfig, build_mesh, use_mesh
from mjx.training.trainer import Trainer


@pytest.mark.parametrize("axes", [("expert",), ("expert", "tensor")])
def test_rows_come_to_their_places_and_gradients_back(axes):
    mesh = build_mesh(MeshConfig(data=2, expert=2, tensor=2))
    with use_mesh(mesh), jax.transfer_guard("disallow"):  # as in a run
        exchange.check_exchange(axes)


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        (
            lambda rows: rows.at[5].set(0),
            r"1 of 77 rows of a ragged all-to-all over expert come out wrong on",
        ),
        (lambda rows: rows if rows.shape[0] == 77 else 2 * rows, r"gradients of a ragged .*; use fixed or"),
    ],
    ids=["a row is lost", "gradients are wrong"],
)
def test_a_collective_that_is_wrong_is_found(monkeypatch, mistake, sentence):
    right = exchange._emulated
    monkeypatch.setattr(exchange, "_emulated", lambda *arguments: mistake(right(*arguments)))
    with (
        use_mesh(build_mesh(MeshConfig(data=1, expert=2), jax.devices()[:2])),
        pytest.raises(InputError, match=sentence),
    ):
        exchange.check_exchange(("expert",))


@pytest.mark.parametrize(("way", "tried"), [("ragged", [("expert",)]), ("auto", [])])
def test_the_first_step_tries_it_where_it_is_named(way, tried, monkeypatch):
    moe = MoEConfig(experts=4, mlp=MLPConfig(features=8), dispatch=DispatchConfig(way=way))
    model = GPTConfig(
        num_layers=1, hidden_size=8, vocab_size=16, attention=AttentionConfig(num_heads=2), moe=moe
    )
    mesh = build_mesh(MeshConfig(data=1, expert=4), jax.devices()[:4])
    trainer = Trainer(model, steps=1, batch=token_batch(rows=4, sequence=8), mesh=mesh)
    named = "ragged, named" if way == "ragged" else "fixed, the least"
    (sentence,) = trainer.decided
    assert sentence.startswith(f"4 experts over expert: {named}")
    asked = []
    monkeypatch.setattr(exchange, "check_exchange", asked.append)
    monkeypatch.setattr(trainer, "train_step", lambda state, batch: state)
    monkeypatch.setattr(trainer, "place", dict)
    trainer.step(1, {"tokens": 0})
    trainer.step(2, {"tokens": 0})
    assert asked == tried
