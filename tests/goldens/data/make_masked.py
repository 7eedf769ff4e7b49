"""Makes masked.npz: sample maps and samples of Megatron-Core 0.16.1's masked datasets.

    PYTHONPATH=ORACLES python make_masked.py

ORACLES is the folder of `megatron_cpu.py`, which lets Megatron-Core run without a GPU (torch 2.13). `cases`
says what was chosen: of each map `NAME/lengths`, `NAME/documents` and `NAME/samples`; of each dataset the
arrays of its first samples, all from one corpus (`tokens`, `lengths`, `documents`) and one vocabulary.
"""

import itertools
import json
import tempfile
from pathlib import Path

import megatron_cpu
import numpy as np
import torch

HERE = Path(__file__).parent
PIECES = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[BOS]", "[EOS]"),
    *(f"<extra_id_{number}>" for number in range(20)),
    *(("##" if number % 3 == 0 else "") + f"w{number}" for number in range(27, 160)),
]


class WordPieces:
    """What the datasets ask of a tokenizer."""

    vocab_size = len(PIECES)
    pad, cls, sep, mask, bos, eos = 0, 2, 3, 4, 5, 6

    def __init__(self):
        self.inv_vocab = dict(enumerate(PIECES))
        self.additional_special_tokens_ids = list(range(7, 27))
        self.unique_identifiers = {"class": "word pieces"}


def corpus(random):
    """Sentences of up to 40 tokens, among them special ones and pad; documents of none, one and many."""
    lengths = random.randint(0, 40, 260)
    documents = np.concatenate([[0], np.sort(random.randint(0, 261, 44)), [260]])
    tokens = random.randint(27, len(PIECES), lengths.sum())
    rare = random.rand(len(tokens))
    tokens[rare < 0.03] = random.randint(0, 27, int((rare < 0.03).sum()))
    return tokens.astype(np.uint16), lengths.astype(np.int32), documents.astype(np.int64)


MAPS = [
    # sentences, longest, documents, length, short probability, least sentences, samples or one epoch, seed
    (400, 40, 60, 125, 0.1, 2, None, 1234),
    (400, 40, 60, 125, 0.1, 1, 700, 1234),
    (300, 60, 5, 61, 0.5, 2, 400, 7),
    (300, 3, 150, 509, 0.1, 1, 1000, 99),
    (500, 560, 120, 126, 0.1, 1, 300, 3),
    (500, 560, 120, 509, 0.3, 2, 200, 2**31 - 2),
    (200, 30, 1, 20, 1.0, 1, 100, 5),
    (200, 30, 1, 20, 0.0, 2, 100, 5),
    (200, 9, 200, 2, 0.01, 1, 500, 11),
]

TOKENS = {"sequence_length": 64, "masking_max_ngram": 3, "masking_do_full_word": True}
SPANS = {
    "sequence_length": 64,
    "sequence_length_decoder": 32,
    "masking_max_ngram": 10,
    "masking_do_full_word": True,
    "masking_use_geometric_distribution": True,
}
DATASETS = {
    "bert_pairs": ("bert", TOKENS | {"classification_head": True}, 1234),
    "bert_other_seed": ("bert", TOKENS | {"classification_head": True}, 2**31 - 40),
    "bert_alone": ("bert", TOKENS | {"classification_head": False}, 1),
    "bert_pieces": ("bert", TOKENS | {"classification_head": True, "masking_do_full_word": False}, 77),
    "bert_longer": (
        "bert",
        TOKENS | {"classification_head": True, "masking_use_longer_ngrams": True, "masking_max_ngram": 5},
        5,
    ),
    "bert_spans": (
        "bert",
        TOKENS
        | {
            "classification_head": True,
            "masking_use_geometric_distribution": True,
            "masking_max_ngram": 10,
            "masking_probability": 0.3,
            "short_sequence_probability": 0.5,
        },
        6,
    ),
    "t5_spans": ("t5", SPANS, 1234),
    "t5_other_seed": ("t5", SPANS, 4321),
    "t5_ngrams": (
        "t5",
        SPANS | {"masking_use_geometric_distribution": False, "masking_max_ngram": 3},
        2,
    ),
    "t5_long": ("t5", SPANS | {"sequence_length": 128, "sequence_length_decoder": 64}, 8),
}
SAMPLES = 48


def maps(found):
    from megatron.core.datasets import helpers_cpp

    said = []
    for number, (sentences, longest, documents, length, short, least, samples, seed) in enumerate(MAPS):
        random = np.random.RandomState(number)
        lengths = random.randint(0, longest, sentences).astype(np.int32)
        inner = np.sort(random.randint(0, sentences + 1, documents - 1))
        bounds = np.concatenate([[0], inner, [sentences]]).astype(np.int64)
        name = f"map{number}"
        epochs, least_samples = (1, 2**60) if samples is None else (2**31 - 2, samples)
        found[f"{name}/lengths"], found[f"{name}/documents"] = lengths, bounds
        split = [0, documents] if number % 2 else [documents // 5, documents]
        found[f"{name}/samples"] = helpers_cpp.build_mapping(
            bounds[split[0] : split[1] + 1],
            lengths,
            epochs,
            least_samples,
            length,
            short,
            seed,
            False,
            least,
        )
        said.append(
            {
                "name": name,
                "split": split,
                "length": length,
                "short_probability": short,
                "least_sentences": least,
                "num_samples": samples,
                "seed": seed,
            }
        )
    return said


def datasets(found):
    from megatron.core.datasets.bert_dataset import (
        BERTMaskedWordPieceDataset,
        BERTMaskedWordPieceDatasetConfig,
    )
    from megatron.core.datasets.indexed_dataset import (
        IndexedDataset,
        IndexedDatasetBuilder,
        get_bin_path,
        get_idx_path,
    )
    from megatron.core.datasets.t5_dataset import T5MaskedWordPieceDataset, T5MaskedWordPieceDatasetConfig
    from megatron.core.datasets.utils import Split

    kinds = {
        "bert": (BERTMaskedWordPieceDataset, BERTMaskedWordPieceDatasetConfig),
        "t5": (T5MaskedWordPieceDataset, T5MaskedWordPieceDatasetConfig),
    }
    tokens, lengths, documents = corpus(np.random.RandomState(0))
    found |= {"tokens": tokens, "lengths": lengths, "documents": documents}
    said = []
    with tempfile.TemporaryDirectory() as folder:
        prefix = f"{folder}/text"
        builder = IndexedDatasetBuilder(get_bin_path(prefix), dtype=np.uint16)
        sentences = np.split(tokens.astype(np.int64), np.cumsum(lengths)[:-1])
        for first, end in itertools.pairwise(documents):
            for sentence in sentences[first:end]:
                builder.add_item(torch.tensor(sentence))
            builder.end_document()
        builder.finalize(get_idx_path(prefix))
        for name, (kind, chosen, seed) in DATASETS.items():
            dataset, config = kinds[kind]
            settings = {
                "masking_probability": 0.15,
                "short_sequence_probability": 0.1,
                "masking_do_permutation": False,
                "masking_use_longer_ngrams": False,
                "masking_use_geometric_distribution": False,
            } | chosen
            made = dataset(
                IndexedDataset(prefix),
                prefix,
                np.arange(2, len(documents) - 1, dtype=np.int32),
                200,
                Split.train,
                config(
                    random_seed=seed,
                    tokenizer=WordPieces(),
                    path_to_cache=f"{folder}/{name}",
                    split="1",
                    **settings,
                ),
            )
            rows = [made[number] for number in range(SAMPLES)]
            for key in rows[0]:
                found[f"{name}/{key}"] = np.stack([row[key] for row in rows]).astype(np.int16)
            said.append({"name": name, "kind": kind, "seed": seed, "num_samples": 200, **settings})
    return said


if __name__ == "__main__":
    megatron_cpu.boot("0_16_1")
    found: dict[str, np.ndarray] = {}
    said = {"maps": maps(found), "datasets": datasets(found), "pieces": PIECES}
    np.savez_compressed(HERE / "masked.npz", cases=np.array(json.dumps(said)), **found)
