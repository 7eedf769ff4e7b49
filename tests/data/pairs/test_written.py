"""Pairs of texts as rows for encoder and decoder: padded, packed, cut, and as long as a batch needs."""

import json

import numpy as np
import pytest

from mjx.data import Loader, evaluation_batches
from mjx.data.config import DatasetConfig
from mjx.errors import InputError
from mjx.parse import parse, to_tree

RANDOM = np.random.RandomState(0)
PAIRS = [
    (f"source {number} " + "s" * RANDOM.randint(0, 30), f"target {number} " + "t" * RANDOM.randint(0, 12))
    for number in range(83)
]
EOS, START = 256, 1


@pytest.fixture
def tree(tmp_path):
    lines = (json.dumps({"source": first, "target": second}) for first, second in PAIRS)
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    return {
        "kind": "seq2seq",
        "sources": [{"path": str(tmp_path / "pairs.jsonl")}],
        "tokenizer": "byte",
        "start": START,
        "sequence_length": 48,
        "decoder_length": 24,
        "split": "60,23,0",
        "cache_dir": str(tmp_path / "cache"),
    }


def config(tree, **choices):
    return parse(DatasetConfig, tree | choices, "data")


def pairs_of(batch):
    """The texts in the rows of a batch, by segments, after checking what stands around them."""
    found = []
    for row in range(len(batch["tokens"])):
        segments, decoder = batch["segment_ids"][row], batch["decoder_segment_ids"][row]
        assert set(segments.tolist()) - {0} == set(decoder.tolist()) - {0}
        np.testing.assert_array_equal(batch["loss_mask"][row], decoder > 0)
        for segment in range(1, segments.max() + 1):
            tokens = batch["tokens"][row][segments == segment].tolist()
            labels = batch["labels"][row][decoder == segment].tolist()
            shifted = batch["decoder_tokens"][row][decoder == segment].tolist()
            assert shifted == [START, *labels[:-1]]
            assert tokens[-1] == labels[-1] == EOS
            found.append((bytes(tokens[:-1]).decode(), bytes(labels[:-1]).decode()))
        assert not batch["tokens"][row][segments == 0].any()
        assert not batch["decoder_tokens"][row][decoder == 0].any()
        for name, side in (("positions", segments), ("decoder_positions", decoder)):
            if name in batch:
                for segment in range(1, segments.max() + 1):
                    count = (side == segment).sum()
                    assert batch[name][row][side == segment].tolist() == list(range(count))
    return found


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"packing": True, "sequence_length": 128, "decoder_length": 64},
        {"buckets": [24, 32]},
        {"sort_rows": 40},
    ],
)
def test_every_pair_comes_once_in_every_epoch(tree, choices):
    data = config(tree, **choices).open()
    train = data.dataset("train")
    assert sorted(pairs_of(train.read(np.arange(len(train))))) == sorted(PAIRS[:60])
    assert sorted(pairs_of(data.dataset("valid").read(np.arange(len(data.dataset("valid")))))) == sorted(
        PAIRS[60:]
    )
    if not choices.get("packing"):
        twice = data.dataset("train", 120)
        epochs = [pairs_of(twice.read(np.arange(60) + 60 * epoch)) for epoch in range(2)]
        assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(PAIRS[:60])
        assert epochs[0] != epochs[1]
    else:
        assert len(train) < 30


@pytest.mark.parametrize("choices", [{}, {"packing": True}, {"source_eos": False}])
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


def test_lines_of_two_files_are_read_as_pairs_and_may_be_blended(tree, tmp_path):
    for name, texts in zip(("en", "fr"), zip(*PAIRS, strict=True), strict=True):
        (tmp_path / f"{name}.txt").write_text("\n".join(texts))
    lines = {"path": str(tmp_path / "en.txt"), "target_path": str(tmp_path / "fr.txt"), "weight": 3}
    alone = config(tree, sources=[lines | {"weight": 1}]).open().dataset("train")
    one = config(tree).open().dataset("train")
    for name, values in one.read(np.arange(60)).items():
        np.testing.assert_array_equal(values, alone.read(np.arange(60))[name])
    blend = config(tree, sources=[*tree["sources"], lines], buckets=[24]).open().dataset("train", 80)
    assert np.bincount(blend.dataset_index).tolist() == [20, 60]
    assert len(next(Loader(blend, 80))["tokens"]) == 80
    own = {"own": {"sources": [{"path": lines["path"], "target_path": lines["target_path"]}]}}
    assert len(config(tree, validation=own, split="1").open().validation()["own"]) == len(PAIRS)


def test_batches_are_as_long_as_the_bucket_that_holds_all_their_rows(tree):
    chosen = {"buckets": [24, 32], "sort_rows": 60}
    dataset = config(tree, **chosen).open().dataset("train", 60)
    whole = list(Loader(dataset, 5))
    halves = [Loader(dataset, 5, rows) for rows in (np.arange(2), np.arange(2, 5))]
    widths = set()
    for batch in whole:
        encoder, decoder = batch["tokens"].shape[1], batch["labels"].shape[1]
        widths.add(encoder)
        longest = batch["segment_ids"].sum(axis=1).max()
        assert encoder == next(width for width in (24, 32, 48) if width >= longest)
        assert decoder == 24
        parts = [next(half) for half in halves]
        for name, values in batch.items():
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)
    assert widths >= {24, 48}
    drawn = Loader(config(tree, buckets=[24, 32]).open().dataset("train", 60), 5)
    assert sum(batch["tokens"].size for batch in whole) < sum(batch["tokens"].size for batch in drawn)
    last = list(evaluation_batches(config(tree, **chosen).open().dataset("valid"), 5))
    assert sum(batch["loss_mask"].any(axis=1).sum() for batch in last) == 23


def test_what_is_too_long_is_cut_with_a_warning(tree, caplog):
    chosen = {"sequence_length": 20, "decoder_length": 12, "prefix": "copy: "}
    dataset = config(tree, **chosen).open().dataset("train")
    said = [message for message in caplog.messages if "are cut" in message]
    long = (
        sum(len(first) + 7 > 20 for first, _ in PAIRS[:60]),
        sum(len(second) + 1 > 12 for _, second in PAIRS[:60]),
    )
    assert said == [
        f"{long[0]} of 60 sources have more than data.sequence_length = 20 tokens, and are cut",
        f"{long[1]} of 60 targets have more than data.decoder_length = 12 tokens, and are cut",
    ]
    found = pairs_of(dataset.read(np.arange(60)))
    assert sorted(found) == sorted((f"copy: {first}"[:19], second[:11]) for first, second in PAIRS[:60])


def test_changed_files_and_settings_are_tokenized_anew(tree, tmp_path):
    def first():
        return pairs_of(config(tree).open().dataset("train").read(np.arange(3)))

    before = first()
    assert first() == before
    folders = list((tmp_path / "cache").glob("rows-*[0-9a-f]"))
    path = tmp_path / "pairs.jsonl"
    path.write_text(path.read_text().replace("source ", "SOURCE "))
    assert first() == [(one.replace("source ", "SOURCE "), other) for one, other in before]
    config(tree, prefix="x").open()
    config(tree, seed=5).open()
    assert len(list((tmp_path / "cache").glob("rows-*[0-9a-f]"))) == len(folders) + 2


@pytest.mark.parametrize("lost", ["rows.bin", "rows.idx", "rows-labels.npy"])
def test_prepared_rows_that_are_damaged_are_made_again(tree, tmp_path, caplog, lost):
    before = pairs_of(config(tree).open().dataset("train").read(np.arange(9)))
    (folder,) = (tmp_path / "cache").glob("rows-*[0-9a-f]")
    (folder / lost).write_bytes((folder / lost).read_bytes()[:-1])
    assert pairs_of(config(tree).open().dataset("train").read(np.arange(9))) == before
    assert [message.partition(" (")[0] for message in caplog.messages] == [
        f"the cache {folder} is damaged, and is built again"
    ]


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        (
            {"corpus": "python-docs", "sources": []},
            'corpus = "python-docs" has neither pairs nor labels; name',
        ),
        (
            {"tokenizer": None, "vocab_size": 300},
            "data.tokenizer = null: rows are texts, so name the tokenizer",
        ),
        ({"start": None}, "data.start = null, and the tokenizer has no start token; give a token of its voc"),
        ({"eos": "</s>"}, 'data.eos = "</s>": the tokenizer has no such token'),
        ({"target_key": "answer"}, 'pairs.jsonl, line 1: no key "answer"; it has "source", "target".'),
        ({"sources": [{"path": "none.jsonl"}]}, "none.jsonl does not exist."),
        ({"buckets": [32, 24]}, "data.buckets = [32, 24] must rise, and be below sequence_length = 48."),
        ({"buckets": [48]}, "data.buckets = [48] must rise, and be below sequence_length = 48."),
        (
            {"packing": True, "sort_rows": 4},
            "buckets and sort_rows are for rows that are padded; with packing",
        ),
        ({"sequence_length": 4}, "data.sequence_length = 4 must be at least 8."),
        ({"decoder_length": 2}, "data.decoder_length = 2 must be at least 4."),
        ({"sort_rows": -1}, "data.sort_rows = -1 must be at least 0."),
    ],
)
def test_what_cannot_work_is_refused(tree, choices, sentence):
    with pytest.raises(InputError) as refused:
        config(tree, **choices).open().dataset("train")
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"source": "a", "target": " "}, 'line 2: the text under "target" is empty.'),
        ({"source": 3, "target": "b"}, 'line 2: no text under "source"'),
        ({"source": "a\ud800", "target": "b"}, "has half of a surrogate pair"),
    ],
)
def test_bad_texts_are_named_and_leave_nothing(tree, tmp_path, record, sentence):
    lines = [json.dumps({"source": "a", "target": "b"}), json.dumps(record)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError) as refused:
        config(tree).open()
    assert sentence in str(refused.value)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]
