"""Which sentences make up a sample: bit for bit Megatron-Core 0.16.1's map, and its shuffle."""

import itertools

import numpy as np
import pytest
from masked_goldens import GOLDENS, META, write_corpus

from mjx.data.indexed import IndexedDatasetWriter
from mjx.data.masked.mersenne import mt19937_64, shuffled
from mjx.data.masked.sentence_map import build_sentence_map, load_sentence_map
from mjx.data.splits import EmptyPartError

CHOICES = ("length", "num_samples", "short_probability", "least_sentences", "seed")


@pytest.mark.parametrize("case", META["maps"], ids=lambda case: case["name"])
def test_maps_equal_megatrons(case):
    samples = build_sentence_map(
        GOLDENS[f"{case['name']}/lengths"],
        GOLDENS[f"{case['name']}/documents"],
        range(*case["split"]),
        **{name: case[name] for name in CHOICES},
    )
    theirs = GOLDENS[f"{case['name']}/samples"]
    assert samples.dtype == theirs.dtype
    np.testing.assert_array_equal(samples, theirs)


def one_by_one(lengths, documents, length, short, least, seed):
    """An epoch as its rule says, sentence by sentence, in the order of the text."""
    random, ratio = np.random.RandomState(seed), round(1 / short)

    def draw():
        number = int(random.randint(0, 2**32, dtype=np.uint32))
        return 2 + number % (length - 1) if number % ratio == 0 else length

    samples = []
    for first, end in zip(documents[:-1].tolist(), documents[1:].tolist(), strict=True):
        if end - first < least or (end - first > 1 and lengths[first:end].max() > 512):
            continue
        begin, tokens, enough = first, 0, draw()
        for sentence in range(first, end):
            tokens += lengths[sentence]
            left = end - sentence - 1
            if (tokens >= enough and left > 1 and sentence + 1 - begin >= least) or not left:
                samples.append((begin, sentence + 1, enough))
                begin, tokens, enough = sentence + 1, 0, draw()
    return sorted(samples)


@pytest.mark.parametrize("seed", range(30))
def test_any_lengths_and_documents_make_the_samples_of_the_rule(seed, monkeypatch):
    monkeypatch.setattr("mjx.data.masked.sentence_map._AT_ONCE", 1 + seed)
    random = np.random.RandomState(seed)
    count = random.randint(1, 900)
    lengths = random.randint(seed % 2, random.choice([2, 30, 120, 560]), count).astype(np.int32)
    inner = np.sort(random.randint(0, count + 1, random.choice([0, 2, count // 8, count])))
    documents = np.concatenate([[0], inner, [count]]).astype(np.int64)
    choice = (int(random.choice([2, 20, 126])), float(random.choice([0.02, 0.1, 0.5, 1.0])), 1 + seed % 2)
    expected = one_by_one(lengths, documents, *choice, seed)
    choices = {
        "length": choice[0],
        "short_probability": choice[1],
        "least_sentences": choice[2],
        "num_samples": None,
        "seed": seed,
    }
    if not expected:
        with pytest.raises(EmptyPartError):
            build_sentence_map(lengths, documents, range(len(documents) - 1), **choices)
        return
    samples = build_sentence_map(lengths, documents, range(len(documents) - 1), **choices)
    assert sorted(map(tuple, samples.tolist())) == expected


def test_a_last_document_may_draw_more_than_an_epoch_usually_does(monkeypatch):
    monkeypatch.setattr("mjx.data.masked.sentence_map._AT_ONCE", 1)
    for seed in range(60):
        lengths = np.ones(5 + 5 * seed, np.int32)
        documents = np.array([0, len(lengths)])
        short = (1.0, 0.5, 0.2)[seed % 3]
        samples = build_sentence_map(
            lengths,
            documents,
            range(1),
            length=60,
            short_probability=short,
            least_sentences=1,
            num_samples=None,
            seed=seed,
        )
        assert sorted(map(tuple, samples.tolist())) == one_by_one(lengths, documents, 60, short, 1, seed)


def test_the_numbers_are_those_of_cpp():
    # std::mt19937_64(5489), the default seed: its 10,000th number is in the C++ standard (rand.predef).
    assert mt19937_64(5489, 10_000)[-1] == 9981545732273789042


@pytest.mark.parametrize("count", [0, 1, 2, 3, 50, 1000])
def test_shuffled_is_what_exchanging_one_by_one_makes(count):
    for seed in range(4):
        order = list(range(count))
        numbers = mt19937_64(seed, max(0, count - 1)).tolist()
        for number, place in zip(numbers, range(count - 1, 0, -1), strict=True):
            other = number % (place + 1)
            order[place], order[other] = order[other], order[place]
        assert shuffled(count, seed).tolist() == order


def test_maps_are_cached_by_all_they_depend_on(tmp_path):
    source = write_corpus(tmp_path / "text")
    base = {"length": 61, "num_samples": 90, "short_probability": 0.1, "least_sentences": 2, "seed": 1}
    documents = range(source.num_documents)
    changes = [{}, {"length": 60}, {"num_samples": 1000}, {"num_samples": None}, {"short_probability": 0.2}]
    changes += [{"least_sentences": 1}, {"seed": 2}]
    for change in changes * 2:
        found = load_sentence_map(source, documents, tmp_path / "cache", **base | change)
        assert isinstance(found, np.memmap)
        built = build_sentence_map(
            source.sequence_lengths, source.document_indices, documents, **base | change
        )
        np.testing.assert_array_equal(found, built)
    load_sentence_map(source, range(3), tmp_path / "cache", **base)
    folders = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert len(folders) == len(changes) + 1


@pytest.mark.parametrize(
    ("lengths", "documents", "sentence"),
    [
        ([5, 5], [0, 1, 2], r"no document with 2 sentences or more .*`mjx data build --split-sentences`"),
        ([], [0, 0, 0], "no document with 2 sentences or more"),
        (
            [513, 5, 600],
            [0, 2, 3],
            "1 are left out for a sentence of more than 512 tokens. Do the text's sent",
        ),
    ],
)
def test_documents_of_which_no_sample_can_be_made_are_refused(tmp_path, lengths, documents, sentence):
    with IndexedDatasetWriter(tmp_path / "d", np.uint16) as writer:
        for first, end in itertools.pairwise(documents):
            for length in lengths[first:end]:
                writer.add_sequence(np.ones(length, int))
            writer.end_document()
    with pytest.raises(EmptyPartError, match=sentence):
        build_sentence_map(
            np.array(lengths, np.int32),
            np.array(documents),
            range(len(documents) - 1),
            length=20,
            num_samples=5,
            short_probability=0.1,
            least_sentences=2,
            seed=1,
        )
