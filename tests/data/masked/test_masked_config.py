"""From a recipe to batches with hidden tokens: blends, splits, validation, hosts, and what is refused."""

import numpy as np
import pytest
from masked_goldens import ROWS, write_corpus

from mjx.data import Loader, evaluation_batches
from mjx.data.config import DatasetConfig
from mjx.data.corpora import CORPORA
from mjx.data.gpt import GPTDatasetConfig
from mjx.data.indexed import IndexedDatasetWriter
from mjx.data.masked.tokens import MaskedTokensConfig
from mjx.errors import InputError
from mjx.parse import parse, to_tree

KINDS = ("bert", "t5")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A folder with the vocabulary of the goldens, whose files name no special token but pad."""
    from masked_goldens import word_pieces

    folder = tmp_path_factory.mktemp("tokenizer")
    word_pieces().save(folder)
    return str(folder)


@pytest.fixture
def tree(tmp_path, tokenizer):
    for name in ("a", "b"):
        write_corpus(tmp_path / name, least=0 if name == "a" else 27)
    return {
        "sources": [{"path": str(tmp_path / "a")}, {"path": str(tmp_path / "b"), "weight": 3.0}],
        "tokenizer": tokenizer,
        "split": "80,20,0",
        "sequence_length": 64,
        "cache_dir": str(tmp_path / "cache"),
    }


def config(tree, kind, **choices):
    return parse(DatasetConfig, tree | {"kind": kind, **choices}, "data")


@pytest.mark.parametrize(
    ("kind", "choices"),
    [("bert", {}), ("bert", {"pairs": False}), ("t5", {}), ("t5", {"decoder_length": 32})],
)
def test_a_batch_has_the_arrays_that_the_config_says(tree, kind, choices):
    chosen = config(tree, kind, **choices)
    assert parse(DatasetConfig, to_tree(chosen), "data") == chosen
    data = chosen.open()
    said = {name: (array.shape, array.dtype) for name, array in chosen.arrays(4).items()}
    for batch in (
        next(Loader(data.dataset("train", 40), 4)),
        next(evaluation_batches(data.dataset("valid"), 4)),
    ):
        assert {name: (values.shape, str(values.dtype)) for name, values in batch.items()} == said


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_hosts_reads_the_same_batches_and_goes_on(tree, kind):
    dataset = config(tree, kind).open().dataset("train", 60)
    whole = list(Loader(dataset, 6))
    parts = [Loader(dataset, 6, rows, start_step=4, threads=2) for rows in (np.arange(3), np.arange(3, 6))]
    for step in range(4, 10):
        halves = [next(part) for part in parts]
        for name, values in whole[step].items():
            np.testing.assert_array_equal(np.concatenate([half[name] for half in halves]), values)


@pytest.mark.parametrize("kind", KINDS)
def test_sources_are_blended_and_documents_are_divided(tree, kind):
    data = config(tree, kind).open()
    blend = data.dataset("train", 200)
    assert np.bincount(blend.dataset_index).tolist() == [50, 150]
    alone = {
        split: config(tree | {"sources": tree["sources"][:1]}, kind).open().dataset(split).sentences.samples
        for split in ("train", "valid")
    }
    bound = int(data.sources[0].document_indices[round(0.8 * 45)])
    assert alone["train"][:, 1].max() <= bound <= alone["valid"][:, 0].min()
    own = {"own": {"sources": [{"path": tree["sources"][1]["path"]}]}}
    validation = config(tree | {"split": "1", "validation": own}, kind).open().validation()
    assert list(validation) == ["own"]
    assert len(validation["own"]) > len(alone["valid"])


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_fill_up_a_batch_weigh_nothing(tree, kind):
    dataset = config(tree, kind).open().dataset("valid")
    batches = list(evaluation_batches(dataset, 7))
    filled = 7 * len(batches) - len(dataset)
    assert filled
    assert not batches[-1]["loss_mask"][-filled:].any()
    if kind == "bert":
        assert (batches[-1]["is_random"][-filled:] == -1).all()
        assert (batches[-1]["is_random"][:-filled] >= 0).all()


def test_special_tokens_may_be_ids_without_a_tokenizer_or_other_tokens(tree, tmp_path):
    names = {"cls": "[CLS]", "sep": 3, "mask": "[MASK]"}
    by_name = config(tree, "bert", **names, whole_words=False).open().dataset("train", 60)
    ids = {"cls": 2, "sep": 3, "mask": 4, "pad": 0, "vocab_size": 160, "tokenizer": None}
    by_id = config(tree, "bert", **ids).open().dataset("train", 60)
    one, other = by_name.read(ROWS), by_id.read(ROWS)
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name])
    swapped = config(tree, "bert", mask="w28").open().dataset("train", 60).read(ROWS)
    assert (swapped["tokens"] == 28).sum() > 4 * (one["tokens"] == 28).sum()


@pytest.mark.parametrize(
    ("kind", "choices", "sentence"),
    [
        (
            "bert",
            {"mask": "<mask>"},
            'data.mask = "<mask>": the tokenizer has no such token; give a token of',
        ),
        ("bert", {"cls": 160}, "data.cls = 160: the id must be from 0 to 159, as the vocabulary's are."),
        ("bert", {"tokenizer": "byte"}, "data.cls = null, and the tokenizer has no cls token; give a token"),
        (
            "t5",
            {"tokenizer": "byte", "start": 0},
            'data.sentinels = [], and the tokenizer has no "<extra_id_0>" to stand for a hidden span; name',
        ),
        (
            "t5",
            {"sentinels": ["<extra_id_0>", "<extra_id_20>"]},
            'data.sentinels = "<extra_id_20>": the tokenizer has no such token',
        ),
        (
            "bert",
            {"tokenizer": None, "vocab_size": 160},
            "data.cls = null, and there is no tokenizer to ask; give an id.",
        ),
        ("bert", {"sequence_length": 4}, "data.sequence_length = 4 must be at least 8."),
        ("bert", {"mask_probability": 1.0}, "data.mask_probability = 1.0 must be between 0 and 1."),
        ("bert", {"short_probability": -0.1}, "data.short_probability = -0.1 must be 0, or from 1e-6 to 1."),
        ("bert", {"max_ngram": 0}, "data.max_ngram = 0 must be at least 1."),
        ("t5", {"longer_ngrams": True}, "data.longer_ngrams = true has no effect with geometric = true"),
        ("t5", {"decoder_length": 3}, "data.decoder_length = 3 must be at least 4."),
    ],
)
def test_what_cannot_work_is_refused(tree, kind, choices, sentence):
    with pytest.raises(InputError) as refused:
        config(tree, kind, **choices).open().dataset("train", 8)
    assert sentence in str(refused.value)


def test_sources_that_are_not_split_into_sentences_are_refused(tree, tmp_path):
    with IndexedDatasetWriter(tmp_path / "whole", np.uint16) as writer:
        writer.add_documents(np.full(60, 30), np.full(20, 3))
    data = config(tree | {"sources": [{"path": str(tmp_path / "whole")}]}, "bert").open()
    with pytest.raises(InputError, match=r"no document with 2 sentences or more .*--split-sentences"):
        data.dataset("train", 8)


def test_a_corpus_is_split_into_sentences_and_has_the_special_tokens(tmp_path, monkeypatch):
    texts = [
        f"Document {number} begins here. It goes on, as texts do! Does it end? It does."
        for number in range(90)
    ]
    monkeypatch.setitem(CORPORA, "small", lambda: iter(texts))
    choices = {"corpus": "small", "vocab_size": 300, "cache_dir": str(tmp_path), "sequence_length": 48}
    for kind in KINDS:
        data = config(choices, kind).open()
        assert data.sources[0].num_documents == 90
        assert len(data.sources[0]) == 4 * 90
        batch = data.dataset("train", 40).read(np.arange(40))
        special = data.tokenizer.mask_id if kind == "bert" else data.tokenizer.token_id("<extra_id_0>")
        assert (batch["tokens"] == special).any(axis=1).mean() > 0.7
    assert len([path for path in tmp_path.glob("corpus-*") if path.is_dir()]) == 1
    whole = GPTDatasetConfig(**choices | {"sequence_length": 16}).open()
    assert len(whole.sources[0]) == 90


def test_a_trained_vocabulary_too_small_for_its_special_tokens_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(CORPORA, "small", lambda: iter(["One. Two."]))
    choices = {"corpus": "small", "vocab_size": 110, "cache_dir": str(tmp_path)}
    with pytest.raises(
        InputError, match=r"vocab_size = 110 leaves too little room beside 107 special tokens and 11 char"
    ):
        MaskedTokensConfig(**choices).open()
