"""From a config to batches: the corpus that comes with Python, blends, and configs that cannot work."""

import dataclasses
import multiprocessing

import numpy as np
import pytest

from mjx.data import Loader, evaluation_batches
from mjx.data.build import write_documents
from mjx.data.corpora import CORPORA, corpus
from mjx.data.gpt import GPTDatasetConfig
from mjx.data.gpt.dataset import GPTDataset
from mjx.data.gpt.packing import PackedDataset
from mjx.data.named_corpus import prepare_corpus
from mjx.data.text import SourceConfig, ValidationConfig
from mjx.data.tokenizers import load_tokenizer
from mjx.errors import InputError
from mjx.parse import parse, to_tree

BYTE = load_tokenizer("byte")


@pytest.fixture
def small_corpus(monkeypatch):
    texts = [f"document {i}: " + "word " * (i % 17) for i in range(300)]
    monkeypatch.setitem(CORPORA, "small", lambda: iter(texts + texts[:5]))
    return "small"


@pytest.fixture
def config(tmp_path):
    sources = []
    for name, count in (("a", 60), ("b", 20)):
        texts = [f"{name}{i} " + name * (i % 23) for i in range(count)]
        write_documents(texts, tmp_path / name, BYTE)
        sources.append(SourceConfig(path=str(tmp_path / name), weight=1.0 if name == "a" else 3.0))
    return {
        "sources": tuple(sources),
        "tokenizer": "byte",
        "split": "80,20,0",
        "sequence_length": 16,
        "cache_dir": str(tmp_path / "cache"),
    }


def test_python_docs_are_a_few_megabytes_of_distinct_documents():
    python_docs = corpus("python-docs")
    assert 1.5e6 < sum(map(len, python_docs)) < 1e7
    assert len(set(python_docs)) == len(python_docs) > 2000
    assert any("json.dumps\n\nSerialize" in text for text in python_docs)


def test_a_corpus_has_each_document_once_in_an_order_of_its_own(small_corpus):
    texts = list(CORPORA[small_corpus]())
    assert sorted(corpus(small_corpus)) == sorted(set(texts))
    assert corpus(small_corpus) == corpus(small_corpus) != sorted(set(texts))


def test_an_unknown_corpus_is_refused():
    with pytest.raises(InputError, match='corpus = "shakespeare" is not known; known are python-docs'):
        corpus("shakespeare")


def test_python_docs_train_from_nothing(tmp_path):
    config = GPTDatasetConfig(
        corpus="python-docs", vocab_size=512, sequence_length=64, cache_dir=str(tmp_path)
    )
    data = config.open()
    assert data.vocab_size == data.tokenizer.vocab_size == 512
    batch = next(Loader(data.dataset("train", 800), 8))
    assert batch["tokens"].shape == (8, 64)
    np.testing.assert_array_equal(batch["tokens"][:, 1:], batch["labels"][:, :-1])
    assert batch["tokens"].max() < 512
    assert len(data.dataset("valid")) > 10


def test_a_prepared_corpus_is_not_made_again(tmp_path, small_corpus, monkeypatch):
    first = prepare_corpus(small_corpus, tmp_path, vocab_size=300)
    monkeypatch.setitem(CORPORA, small_corpus, lambda: pytest.fail("made again"))
    again = prepare_corpus(small_corpus, tmp_path, vocab_size=300)
    assert again.tokens.prefix == first.tokens.prefix
    assert again.tokenizer.encode("a word") == first.tokenizer.encode("a word")


def test_a_corpus_with_a_given_tokenizer_uses_it(tmp_path, small_corpus):
    config = GPTDatasetConfig(
        corpus=small_corpus, tokenizer="byte", sequence_length=8, cache_dir=str(tmp_path)
    )
    data = config.open()
    assert data.vocab_size == 257
    assert bytes(data.sources[0][0][:9].tolist()) == b"document "


def _prepare(folder, barrier, results):
    CORPORA["many"] = lambda: (f"document {i}" * 50 for i in range(5000))
    barrier.wait()
    prepared = prepare_corpus("many", folder, tokenizer=BYTE)
    results.put(prepared.tokens.prefix)


def test_processes_that_prepare_together_share_one_corpus(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_prepare, args=(tmp_path, barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    assert len({results.get(timeout=120) for _ in processes}) == 1
    for process in processes:
        process.join()
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1


def test_sources_are_blended_by_weight(config):
    dataset = GPTDatasetConfig(**config).open().dataset("train", 200)
    assert len(dataset) == 200
    batch = dataset.read(np.arange(200))
    from_b = (batch["tokens"] == ord("b")).any(axis=1)
    assert from_b.sum() == 150


def test_validation_reads_every_window_of_every_source_once(config):
    data = GPTDatasetConfig(**config).open()
    dataset = data.dataset("valid")
    expected = sum(
        (int(source.sequence_lengths[-n:].sum()) - 1) // 16
        for source, n in zip(data.sources, (12, 4), strict=True)
    )
    assert len(dataset) == expected
    masks = [batch["loss_mask"] for batch in evaluation_batches(dataset, 4)]
    assert sum(mask.sum() for mask in masks) == 16 * expected


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"document_mask": True},
        {"reset_positions": True},
        {"mask_eod_loss": True},
        {"document_mask": True, "reset_positions": True, "mask_eod_loss": True},
        {"packing": True},
    ],
    ids=lambda options: "+".join(options) or "none",
)
def test_a_batch_has_the_arrays_that_the_config_says(config, options):
    config = GPTDatasetConfig(**config, **options)
    batch = next(evaluation_batches(config.open().dataset("valid"), 4))
    said = config.arrays(4)
    assert {name: (values.shape, str(values.dtype)) for name, values in batch.items()} == {
        name: (array.shape, array.dtype) for name, array in said.items()
    }


def test_options_reach_the_batch(config):
    config["sources"] = config["sources"][:1]
    plain = GPTDatasetConfig(**config).open().dataset("train")
    assert isinstance(plain, GPTDataset)
    assert "segment_ids" not in plain.read(np.arange(4))
    masked = GPTDatasetConfig(**config, document_mask=True, reset_positions=True, mask_eod_loss=True).open()
    batch = masked.dataset("train").read(np.arange(4))
    ends = batch["tokens"] == BYTE.eod_id
    assert ends.any()
    assert not batch["loss_mask"][ends].any()
    assert not batch["positions"][:, 1:][ends[:, :-1]].any()
    packed = GPTDatasetConfig(**config, packing=True).open().dataset("train", 100)
    assert isinstance(packed, PackedDataset)
    assert (packed.read(np.arange(4))["labels"] == BYTE.eod_id).any()


def test_masks_need_no_tokenizer(config):
    known = {"tokenizer": None, "vocab_size": 257, "document_mask": True, "mask_eod_loss": True}
    without = GPTDatasetConfig(**config | known).open().dataset("train", 20).read(np.arange(20))
    masks = {"document_mask": True, "mask_eod_loss": True}
    with_one = GPTDatasetConfig(**config, **masks).open().dataset("train", 20).read(np.arange(20))
    for name, values in with_one.items():
        np.testing.assert_array_equal(values, without[name], err_msg=name)


def _told(data, split="valid"):
    with pytest.raises(InputError) as refused:
        data.dataset(split)
    return str(refused.value)


def test_an_empty_split_names_the_source_and_the_keys_that_mend_it(config, tmp_path):
    one = GPTDatasetConfig(**config | {"sources": config["sources"][:1]}).open()
    assert _told(one, "test") == (
        f'{tmp_path}/a, test: data.split = "80,20,0" leaves the test part no document of 60. Give it a '
        "larger share of data.split."
    )
    one = dataclasses.replace(one, config=dataclasses.replace(one.config, split="1,0,0"))
    assert _told(one) == (
        f'{tmp_path}/a, valid: data.split = "1,0,0" leaves the valid part no document of 60. '
        "training.evaluation_rows=0 trains without validation; "
        'data.split="59,1,0" gives it one document, and data.validation takes it from files of its own.'
    )
    advised = dataclasses.replace(one, config=dataclasses.replace(one.config, split="59,1,0"))
    assert len(advised.dataset("valid")) == 1
    assert len(advised.dataset("train", 40)) >= 40

    write_documents(["a single document"], tmp_path / "one", BYTE)
    (source,) = (SourceConfig(path=str(tmp_path / "one")),)
    alone = GPTDatasetConfig(**config | {"sources": (source,), "split": "969,30,1"}).open()
    assert _told(alone).endswith(
        "training.evaluation_rows=0 trains without validation; data.validation takes it from files of its "
        "own."
    )
    alone = dataclasses.replace(alone, config=dataclasses.replace(alone.config, split="0,1,0"))
    assert _told(alone, "train").endswith(
        'no document of 1. data.split="1,0,0" with training.evaluation_rows=0 gives it all.'
    )
    alone = dataclasses.replace(alone, config=dataclasses.replace(alone.config, split="1,0,0"))
    assert len(alone.dataset("train", 5)) >= 5


@pytest.mark.parametrize("options", [{}, {"packing": True}, {"document_mask": True}])
def test_a_part_shorter_than_a_row_is_a_padded_row(config, options):
    data = GPTDatasetConfig(**config | {"sequence_length": 4096, **options}).open()
    dataset = data.dataset("valid")
    assert len(dataset) == 2  # one of each source
    (batch,) = evaluation_batches(dataset, 4)
    learned = [source.sequence_lengths[-n:] for source, n in zip(data.sources, (12, 4), strict=True)]
    gaps = sum(len(lengths) for lengths in learned) if options == {"packing": True} else 2
    assert batch["loss_mask"].sum() == sum(lengths.sum() for lengths in learned) - gaps
    assert not batch["loss_mask"][2:].any()


def test_a_source_whose_part_is_empty_is_left_out_of_the_blend(config, tmp_path, caplog):
    write_documents(["one", "two"], tmp_path / "few", BYTE)
    write_documents(["", "", "", ""], tmp_path / "empty", BYTE)
    sources = [SourceConfig(path=str(tmp_path / name)) for name in ("few", "empty")]
    blend = GPTDatasetConfig(**config | {"sources": (sources[0], *config["sources"], sources[1])}).open()
    alone = GPTDatasetConfig(**config).open()
    for part, size in (("valid", None), ("train", 100)):
        caplog.clear()
        expected = alone.dataset(part, size)
        left = blend.dataset(part, size)
        assert len(caplog.messages) == (2 if part == "valid" else 1)
        assert all("It is left out of the blend." in message for message in caplog.messages)
        assert f"{tmp_path}/empty, {part}: " in caplog.messages[-1]
        if part == "valid":
            assert f'{tmp_path}/few, valid: data.split = "80,20,0" leaves' in caplog.messages[0]
            rows = np.arange(len(expected))
            np.testing.assert_array_equal(left.read(rows)["tokens"], expected.read(rows)["tokens"])
    few = GPTDatasetConfig(**config | {"sources": tuple(sources)}).open()
    assert _told(few).startswith(f"{tmp_path}/few, valid: ")


def test_validation_sets_have_files_of_their_own(config, caplog):
    sets = {name: ValidationConfig(sources=(config["sources"][number],)) for number, name in enumerate("ab")}
    sets["both"] = ValidationConfig(
        sources=tuple(dataclasses.replace(source, weight=1.0) for source in config["sources"])
    )
    data = GPTDatasetConfig(**config | {"split": "1"}, validation=sets).open()
    assert not caplog.messages
    validation = data.validation()
    sizes = {
        name: (int(source.sequence_lengths.sum()) - 1) // 16
        for name, source in zip("ab", data.sources, strict=True)
    }
    assert {name: len(dataset) for name, dataset in validation.items()} == {
        **sizes,
        "both": sum(sizes.values()),
    }
    assert (validation["b"].read(np.arange(9))["tokens"] == ord("b")).any()
    assert not (validation["b"].read(np.arange(9))["tokens"] == ord("a")).any()
    assert list(GPTDatasetConfig(**config).open().validation()) == [""]
    GPTDatasetConfig(**config, validation=sets).open()
    (said,) = caplog.messages
    assert 'data.split = "80,20,0" keeps documents for validation' in said
    assert 'data.split="1,0,0" trains on them' in said


def test_validation_sets_are_read_from_a_tree_and_written_to_one():
    tree = {
        "sources": [{"path": "x"}],
        "tokenizer": "byte",
        "validation": {"web": {"sources": [{"path": "y"}]}},
    }
    config = parse(GPTDatasetConfig, tree, "data")
    assert config.validation["web"].sources[0].path == "y"
    assert parse(GPTDatasetConfig, to_tree(config), "data") == config
    for wrong, sentence in [
        (
            {"web": {"sources": []}},
            "data.validation.web.sources = [] gives the set nothing; name a file, or ",
        ),
        (
            {"web": {"source": []}},
            "the key data.validation.web.source does not exist (did you mean sources?)",
        ),
        (
            {"web": {"sources": [{"path": "y", "weight": 2}, {"path": "z"}]}},
            "data.validation.web: sources have the weights [1.0, 2.0]: a validation set has every row",
        ),
        ({"": {"sources": [{"path": "y"}]}}, "data.validation = [''] has a set without a name."),
    ]:
        with pytest.raises(InputError) as refused:
            parse(GPTDatasetConfig, tree | {"validation": wrong}, "data")
        assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sources": ()}, "corpus = None and sources = .*give one of the two"),
        ({"corpus": "python-docs"}, "give one of the two"),
        ({"split": "a"}, 'split = "a"'),
        ({"split": "0,0"}, 'split = "0,0" adds up to 0'),
        ({"split": "9" * 400}, "adds up to inf; for instance"),
        ({"sequence_length": 1}, "sequence_length = 1 must be at least 2"),
        ({"prefetch": -1}, "prefetch = -1 must be at least 0"),
        ({"threads": 0}, "threads = 0 must be at least 1"),
        ({"seed": -1}, "seed = -1"),
        ({"vocab_size": 0}, "vocab_size = 0 must be positive"),
        ({"tokenizer": None}, "tokenizer = null and vocab_size = null"),
        ({"packing": True, "mask_eod_loss": True}, "packing = true implies it"),
    ],
)
def test_a_config_that_cannot_work_is_refused(config, change, sentence):
    with pytest.raises(InputError, match=sentence):
        GPTDatasetConfig(**config | change)


def test_a_weight_must_be_positive():
    with pytest.raises(InputError, match=r"weight = 0.0 must be positive"):
        SourceConfig(path="x", weight=0.0)


def test_a_vocabulary_smaller_than_the_tokenizers_is_refused_where_an_id_beyond_it_occurs(config):
    for choice, model in ((256, None), (None, 256), (300, 256), (256, 300)):
        data = GPTDatasetConfig(**config | {"vocab_size": choice}).open(model)
        assert data.vocab_size == 256
        with pytest.raises(InputError, match="has the token id 256, but vocab_size = 256"):
            data.dataset("train", 10).read(np.arange(10))
    for choice, model in ((300, None), (None, None), (300, 257)):
        data = GPTDatasetConfig(**config | {"vocab_size": choice}).open(model)
        assert data.dataset("train", 10).read(np.arange(10))["tokens"].max() == 256


def test_sources_without_a_tokenizer_need_only_a_vocabulary(config):
    data = GPTDatasetConfig(**config | {"tokenizer": None, "vocab_size": 257}).open()
    assert data.dataset("train", 10).read(np.arange(10))["tokens"].shape == (10, 16)
    data = GPTDatasetConfig(**config | {"tokenizer": None, "vocab_size": 256}).open()
    with pytest.raises(InputError, match="has the token id 256, but vocab_size = 256"):
        data.dataset("train", 10).read(np.arange(10))
