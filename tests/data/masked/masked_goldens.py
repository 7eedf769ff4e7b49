"""Megatron-Core's maps and samples of sentences, and their corpus as files."""

import json
from pathlib import Path

import numpy as np
import tokenizers

from mjx.data.indexed import IndexedDataset, IndexedDatasetWriter
from mjx.data.tokenizers.huggingface import HuggingFaceTokenizer

GOLDENS = np.load(Path(__file__).parents[2] / "goldens" / "data" / "masked.npz")
META = json.loads(str(GOLDENS["cases"]))
ROWS = np.arange(48)


def write_corpus(prefix, least=0) -> IndexedDataset:
    """The corpus of the goldens as a `.bin`/`.idx` pair of sentences; ids below `least` become `least`."""
    bounds = np.cumsum(GOLDENS["lengths"])[:-1]
    sentences = np.split(np.maximum(GOLDENS["tokens"], least), bounds)
    with IndexedDatasetWriter(prefix, np.uint16) as writer:
        for first, end in zip(GOLDENS["documents"][:-1], GOLDENS["documents"][1:], strict=True):
            for sentence in sentences[first:end]:
                writer.add_sequence(sentence)
            writer.end_document()
    return IndexedDataset(prefix)


def word_pieces() -> HuggingFaceTokenizer:
    """A tokenizer with the vocabulary of the goldens."""
    vocabulary = {piece: number for number, piece in enumerate(META["pieces"])}
    model = tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]")
    return HuggingFaceTokenizer(tokenizers.Tokenizer(model), None, None, "[PAD]")


def fields(case) -> dict:
    """Megatron's settings as mjx's."""
    names = {
        "sequence_length": "sequence_length",
        "sequence_length_decoder": "decoder_length",
        "masking_probability": "mask_probability",
        "short_sequence_probability": "short_probability",
        "masking_max_ngram": "max_ngram",
        "masking_do_full_word": "whole_words",
        "masking_use_longer_ngrams": "longer_ngrams",
        "masking_use_geometric_distribution": "geometric",
        "classification_head": "pairs",
        "seed": "seed",
    }
    return {ours: case[theirs] for theirs, ours in names.items() if theirs in case}


def dataset(config, source, num_samples):
    """The samples of the documents that the goldens were made of."""
    return config.samples(
        source,
        range(2, source.num_documents),
        num_samples,
        tokenizer=word_pieces(),
        vocab_size=len(META["pieces"]),
    )
