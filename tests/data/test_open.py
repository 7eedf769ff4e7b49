"""From a config to batches: the corpus that comes with Python, blends, and configs that cannot work."""

import multiprocessing
import threading

import numpy as np
import pytest

from mjx.data import Loader, evaluation_batches
from mjx.data.build import write_documents
from mjx.data.cache import build_once
from mjx.data.corpora import CORPORA, corpus
from mjx.data.gpt import GPTDatasetConfig
from mjx.data.gpt.dataset import GPTDataset
from mjx.data.gpt.packing import PackedDataset
from mjx.data.named_corpus import prepare_corpus
from mjx.data.text import SourceConfig
from mjx.data.tokenizers import load_tokenizer
from mjx.errors import InputError

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
    assert again.prefix == first.prefix
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
    results.put(prepared.prefix)


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


def test_one_builds_while_the_others_wait(tmp_path):
    built = []

    def build(folder):
        built.append(folder)
        threading.Event().wait(0.3)
        (folder / "file").write_text("whole")

    threads = [threading.Thread(target=build_once, args=(tmp_path / "x", build)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert (tmp_path / "x" / "file").read_text() == "whole"


def test_waiting_ends_with_an_error_and_a_failed_build_leaves_nothing(tmp_path):
    started, done = threading.Event(), threading.Event()

    def slow(folder):
        started.set()
        done.wait(10)
        raise RuntimeError("the builder failed")

    def run():
        with pytest.raises(RuntimeError):
            build_once(tmp_path / "x", slow)

    thread = threading.Thread(target=run)
    thread.start()
    started.wait(10)
    with pytest.raises(TimeoutError, match=r"holds .*x.lock for more than 0 s"):
        build_once(tmp_path / "x", lambda folder: None, timeout=0.1)
    done.set()
    thread.join()
    assert [path.name for path in tmp_path.iterdir()] == ["x.lock"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cache_dir: cannot write into"):
        build_once(tmp_path / "file" / "x", lambda folder: None)


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


def test_an_empty_or_short_split_names_the_source(config):
    data = GPTDatasetConfig(**config).open()
    with pytest.raises(InputError, match=r"/a, test: split = .* no document of 60"):
        data.dataset("test")
    data = GPTDatasetConfig(**config | {"sequence_length": 4096}).open()
    with pytest.raises(InputError, match=r"/a, valid: .*too few for one sample of sequence_length = 4096"):
        data.dataset("valid")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sources": ()}, "corpus = None and sources = .*give one of the two"),
        ({"corpus": "python-docs"}, "give one of the two"),
        ({"split": "a"}, 'split = "a"'),
        ({"sequence_length": 1}, "sequence_length = 1 must be at least 2"),
        ({"prefetch": -1}, "prefetch = -1 must be at least 0"),
        ({"threads": 0}, "threads = 0 must be at least 1"),
        ({"seed": -1}, "seed = -1"),
        ({"vocab_size": 0}, "vocab_size = 0 must be positive"),
        ({"tokenizer": None}, "tokenizer = null and vocab_size = null"),
        (
            {"tokenizer": None, "vocab_size": 9, "document_mask": True},
            "document_mask = true needs a tokenizer",
        ),
        ({"packing": True, "mask_eod_loss": True}, "packing = true implies it"),
    ],
)
def test_a_config_that_cannot_work_is_refused(config, change, sentence):
    with pytest.raises(InputError, match=sentence):
        GPTDatasetConfig(**config | change)


def test_a_weight_must_be_positive():
    with pytest.raises(InputError, match=r"weight = 0.0 must be a positive number"):
        SourceConfig(path="x", weight=0.0)


def test_a_vocabulary_smaller_than_the_tokenizers_is_refused(config):
    with pytest.raises(InputError, match="vocab_size = 200 is smaller than the tokenizer's 257"):
        GPTDatasetConfig(**config | {"vocab_size": 200}).open()
    assert GPTDatasetConfig(**config | {"vocab_size": 300}).open().vocab_size == 300


def test_sources_without_a_tokenizer_need_only_a_vocabulary(config):
    data = GPTDatasetConfig(**config | {"tokenizer": None, "vocab_size": 257}).open()
    assert data.dataset("train", 10).read(np.arange(10))["tokens"].shape == (10, 16)
    data = GPTDatasetConfig(**config | {"tokenizer": None, "vocab_size": 256}).open()
    with pytest.raises(InputError, match="has the token id 256, but vocab_size = 256"):
        data.dataset("train", 10).read(np.arange(10))
