"""Labelled texts and pairs of texts: rows as the tokenizers library makes them, and what is refused."""

import json

import numpy as np
import pytest
import tokenizers

from mjx.data import Loader, evaluation_batches
from mjx.data.config import DatasetConfig
from mjx.data.tokenizers import load_tokenizer
from mjx.data.tokenizers.huggingface import HuggingFaceTokenizer
from mjx.errors import InputError
from mjx.parse import parse, to_tree

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz"]
CLASSES = ["good", "bad", "3"]


def texts(count, seed=0):
    random = np.random.RandomState(seed)
    return [" ".join(random.choice(list(WORDS[4:]), random.randint(1, 20))) for _ in range(count)]


ROWS = [
    {"text": one, "other": other, "label": CLASSES[number % 3] if number % 3 < 2 else 3, "score": number / 8}
    for number, (one, other) in enumerate(zip(texts(70), texts(70, 1), strict=True))
]


@pytest.fixture(scope="module")
def library():
    """The library's own tokenizer, which surrounds and cuts texts by itself."""
    model = tokenizers.models.WordLevel({word: number for number, word in enumerate(WORDS)}, "[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return tokenizer


@pytest.fixture
def tree(tmp_path, library):
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    HuggingFaceTokenizer(library, None, None, "[PAD]", **names).save(tmp_path / "tokenizer")
    return {
        "kind": "classify",
        "sources": [{"path": str(tmp_path / "rows.jsonl")}],
        "tokenizer": str(tmp_path / "tokenizer"),
        "classes": CLASSES,
        "sequence_length": 24,
        "split": "50,20,0",
        "cache_dir": str(tmp_path / "cache"),
    }


def config(tree, **choices):
    return parse(DatasetConfig, tree | choices, "data")


@pytest.mark.parametrize("pair", [None, "other"])
@pytest.mark.parametrize("length", [48, 24, 15, 8])
def test_rows_equal_the_tokenizers_librarys(tree, library, pair, length):
    dataset = config(tree, pair_key=pair, sequence_length=length).open().dataset("train")
    batch = dataset.read(np.arange(50))
    surround = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    copy = tokenizers.Tokenizer.from_str(library.to_str())
    copy.post_processor = surround
    copy.enable_truncation(length, strategy="longest_first")
    copy.enable_padding(length=length, pad_id=0)
    for row, sample in enumerate(dataset.order):
        one = ROWS[sample]
        theirs = copy.encode(one["text"], *(() if pair is None else (one[pair],)))
        assert batch["tokens"][row].tolist() == theirs.ids
        assert batch["segment_ids"][row].tolist() == theirs.attention_mask
        if pair is not None:
            assert batch["token_types"][row].tolist() == theirs.type_ids
        assert batch["labels"][row] == sample % 3
    assert (pair is not None) == ("token_types" in batch)


def test_two_separators_stand_between_texts(tree):
    choices = {"pair_key": "other", "sequence_length": 48}
    one = config(tree, **choices).open().dataset("train").read(np.arange(50))
    two = config(tree, **choices, separators=2).open().dataset("train").read(np.arange(50))
    for row in range(50):
        tokens = one["tokens"][row].tolist()
        between = tokens.index(3)
        assert two["tokens"][row].tolist() == [*tokens[:between], 3, *tokens[between:-1]]
    np.testing.assert_array_equal(two["segment_ids"].sum(axis=1), one["segment_ids"].sum(axis=1) + 1)


@pytest.mark.parametrize("choices", [{}, {"pair_key": "other"}, {"classes": [], "label_key": "score"}])
def test_a_batch_has_the_arrays_that_the_config_says(tree, choices):
    chosen = config(tree, **choices)
    assert parse(DatasetConfig, to_tree(chosen), "data") == chosen
    said = {name: (array.shape, array.dtype) for name, array in chosen.arrays(4).items()}
    data = chosen.open()
    for batch in (
        next(Loader(data.dataset("train", 40), 4)),
        next(evaluation_batches(data.dataset("valid"), 4)),
    ):
        assert {name: (values.shape, str(values.dtype)) for name, values in batch.items()} == said


def test_numbers_are_learned_as_such_and_every_row_counts_once(tree):
    data = config(tree, classes=[], label_key="score", buckets=[8, 16], sort_rows=50).open()
    train, valid = data.dataset("train"), data.dataset("valid")
    assert sorted(train.read(np.arange(50))["labels"].tolist()) == [number / 8 for number in range(50)]
    batches = list(evaluation_batches(valid, 6))
    learned = [batch["labels"][batch["loss_mask"] > 0] for batch in batches]
    assert sorted(np.concatenate(learned).tolist()) == [number / 8 for number in range(50, 70)]
    assert not batches[-1]["loss_mask"][2:].any()
    widths = {batch["tokens"].shape[1] for batch in Loader(train, 5)}
    assert widths > {24} or widths >= {16, 24}


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"classes": ["good", "bad"]}, "line 3: the label \"3\" is none of data.classes = ['good', 'bad']."),
        (
            {"classes": []},
            "line 1: the label 'good' is no number; where labels are classes, data.classes names",
        ),
        ({"label_key": "stars"}, 'line 1: no key "stars"; it has "text", "other", "label", "score".'),
        (
            {"classes": ["good", "good"]},
            "data.classes = ['good', 'good'] must be two or more, each once; or [].",
        ),
        ({"classes": ["good"]}, "data.classes = ['good'] must be two or more, each once; or []."),
        ({"separators": 0}, "data.separators = 0 must be at least 1, or null."),
        ({"tokenizer": "byte"}, "data.cls = null, and the tokenizer has no cls token; give a token of its"),
    ],
)
def test_what_cannot_work_is_refused(tree, choices, sentence):
    with pytest.raises(InputError) as refused:
        config(tree, **choices).open().dataset("train")
    assert sentence in str(refused.value)


def test_a_text_to_read_stands_between_the_special_tokens_of_a_row(tree):
    data = config(tree)
    tokenizer = load_tokenizer(tree["tokenizer"])
    cls, sep = WORDS.index("[CLS]"), WORDS.index("[SEP]")
    rows = data.prompts(tokenizer, ["a b", ""], len(WORDS))
    assert rows == [[cls, WORDS.index("a"), WORDS.index("b"), sep], [cls, sep]]
    masked = parse(DatasetConfig, {"kind": "bert", "corpus": "python-docs", "sep": "[UNK]"}, "data")
    assert masked.prompts(tokenizer, ["a"], len(WORDS)) == [[cls, WORDS.index("a"), WORDS.index("[UNK]")]]
