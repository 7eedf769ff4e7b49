"""Pairs: each text in a row of its own between its special tokens, and blanks behind the last."""

import json

import numpy as np
import pytest
import tokenizers

from mjx.data import Loader, evaluation_batches
from mjx.data.config import DatasetConfig
from mjx.data.tokenizers.huggingface import HuggingFaceTokenizer
from mjx.errors import InputError
from mjx.parse import parse, to_tree

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghij"]
RANDOM = np.random.RandomState(0)
TEXTS = [" ".join(RANDOM.choice(list(WORDS[4:]), RANDOM.randint(1, 14))) for _ in range(40)]
PAIRS = list(zip(TEXTS[::2], TEXTS[1::2], strict=True))


@pytest.fixture
def tree(tmp_path):
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: number for number, word in enumerate(WORDS)}, "[UNK]")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    HuggingFaceTokenizer(tokenizer, None, None, "[PAD]", **names).save(tmp_path / "tokenizer")
    lines = [json.dumps({"anchor": one, "positive": other}) for one, other in PAIRS]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    (tmp_path / "pairs.tsv").write_text("\n".join("\t".join(pair) for pair in PAIRS))
    return {
        "kind": "contrastive",
        "sources": [{"path": str(tmp_path / "pairs.jsonl")}],
        "tokenizer": str(tmp_path / "tokenizer"),
        "sequence_length": 10,
        "split": "14,6,0",
        "cache_dir": str(tmp_path / "cache"),
    }


def config(tree, **choices):
    return parse(DatasetConfig, tree | choices, "data")


@pytest.mark.parametrize("suffix", ["jsonl", "tsv"])
def test_both_texts_are_rows_of_their_own(tree, tmp_path, suffix):
    columns = {} if suffix == "jsonl" else {"anchor_key": "1", "positive_key": "2"}
    data = config(tree, sources=[{"path": str(tmp_path / f"pairs.{suffix}")}], **columns).open()
    train = data.dataset("train")
    batch = train.read(np.arange(14))
    for row, pair in enumerate(train.order):
        for text, before in zip(PAIRS[pair], ("", "other_"), strict=True):
            ids = [2, *[WORDS.index(word) for word in text.split()][:8], 3]
            assert batch[f"{before}tokens"][row].tolist() == [*ids, *[0] * (10 - len(ids))]
            assert batch[f"{before}segment_ids"][row].sum() == len(ids)


def test_batches_have_what_the_config_says_and_are_filled_up_by_what_counts_for_nothing(tree):
    chosen = config(tree, buckets=[6, 8])
    assert parse(DatasetConfig, to_tree(chosen), "data") == chosen
    data = chosen.open()
    said = chosen.arrays(4)
    batches = list(evaluation_batches(data.dataset("valid"), 4))
    assert [batch["loss_mask"].sum() for batch in batches] == [4, 2]
    for batch in (next(Loader(data.dataset("train", 40), 4)), *batches):
        assert {name: str(values.dtype) for name, values in batch.items()} == {
            name: array.dtype for name, array in said.items()
        }
        widths = {values.shape[1] for values in batch.values() if values.ndim > 1}
        assert len(widths) == 1
        assert widths <= {6, 8, 10}


def test_a_missing_column_is_named(tree):
    with pytest.raises(InputError, match='line 1: no key "query"; it has "anchor", "positive"'):
        config(tree, anchor_key="query").open()
