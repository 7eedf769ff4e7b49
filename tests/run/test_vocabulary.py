"""Tokenizers beside models of other sizes."""

import logging

import pytest

from mjx.data.tokenizers import load_tokenizer
from mjx.run.vocabulary import compare_vocabularies, warn_of_unknown_ids

BYTE = load_tokenizer("byte")


@pytest.mark.parametrize(
    ("vocabulary", "sentence"),
    [
        (256, "has 257 ids, the model's vocabulary 256"),
        (256, 'what has one of the rest (256 "end of document") is refused'),
        (250, 'one of the rest (250 "<0xFA>", 251 "<0xFB>", 252 "<0xFC>", …) is refused'),
        (300, "has only 257 ids, and the model's vocabulary 300: do they belong together?"),
    ],
)
def test_other_sizes_are_warned_of_by_the_tokens_names(vocabulary, sentence, caplog):
    with caplog.at_level(logging.WARNING, logger="mjx"):
        compare_vocabularies(BYTE, vocabulary, "here")
    (record,) = caplog.records
    assert record.getMessage().startswith("the tokenizer of here has ")
    assert sentence in record.getMessage()


def test_padded_vocabularies_and_models_without_tokens_are_not(caplog):
    with caplog.at_level(logging.WARNING, logger="mjx"):
        compare_vocabularies(BYTE, 257, "here")
        compare_vocabularies(BYTE, 264, "here")
        compare_vocabularies(BYTE, None, "here")
        warn_of_unknown_ids(BYTE, 1000, "here")  # which a model that is being made may have
    assert not caplog.records
