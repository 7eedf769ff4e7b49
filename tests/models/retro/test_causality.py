"""What a change of a token, or of a neighbour, can be seen in: nothing in front of it."""

import jax
import numpy as np
import pytest
from families.numbers import parameters
from families.retro import tiny

from mjx.models.common.parameter import bind
from mjx.models.family import abstract_model

VARIANTS = {variant.name: variant for variant in tiny()}


@pytest.fixture(scope="module", params=VARIANTS)
def looked(request):
    """Logits of rows and their neighbours, as a compiled function of both; and both."""
    variant = VARIANTS[request.param]
    model = bind(abstract_model(variant.config), parameters(variant))
    batch = variant.batch(0)
    run = jax.jit(lambda tokens, retrieved: model(tokens, retrieved))
    row = {
        name: batch[name][:1, :13] if name == "tokens" else batch[name][:1, :4]
        for name in ("tokens", "retrieved")
    }
    # Something for every chunk to look at.
    row["retrieved"] = np.maximum(row["retrieved"], 0)
    return variant.config, run, row


def changed(run, row, **other):
    """Which places have other logits."""
    before, after = (np.asarray(run(**{**row, **more})) for more in ({}, other))
    return np.abs(before - after)[0].max(axis=-1) > 0


def test_a_token_changes_nothing_in_front_of_it(looked):
    config, run, row = looked
    for place in range(13):
        tokens = row["tokens"].copy()
        tokens[0, place] = (tokens[0, place] + 1) % config.vocab_size
        found = changed(run, row, tokens=tokens)
        assert not found[:place].any(), place
        assert found[place:].all(), place


def test_a_neighbour_changes_nothing_in_front_of_the_last_token_of_its_chunk(looked):
    """The row's first chunk has one token, the others four: thirteen in all."""
    config, run, row = looked
    for chunk, last in enumerate((0, 4, 8, 12)):
        for neighbour in range(config.neighbours):
            retrieved = row["retrieved"].copy()
            retrieved[0, chunk, neighbour] = (retrieved[0, chunk, neighbour] + 1) % config.vocab_size
            found = changed(run, row, retrieved=retrieved)
            assert not found[:last].any(), (chunk, neighbour)
            own = slice(last, last + config.chunk_length)
            assert found[own].all(), (chunk, neighbour)
            # Attention behind a look carries on what a chunk has seen.
            assert found[own.stop :].all() == (len(config.pattern) > 2 or own.stop > 12), (chunk, neighbour)


def test_without_neighbours_no_text_is_seen(looked):
    _, run, row = looked
    nothing = np.full_like(row["retrieved"], -1)
    assert changed(run, row, retrieved=nothing).any()
    assert changed(run, row, retrieved=None).any()
