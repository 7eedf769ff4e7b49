"""Special tokens that data asks for: what each kind of tokenizer calls so, and what a config says instead."""

import json

import pytest
import tokenizer_kinds as kinds

from mjx.data.tokenizers import load_tokenizer, train_word_pieces
from mjx.data.tokenizers.special import SpecialTokens
from mjx.errors import InputError

TEXTS = [f"The {a} walks to another {b}, walking slowly." for a in ("fox", "dog") for b in ("tree", "house")]


@pytest.fixture(scope="module")
def pieces():
    return train_word_pieces(TEXTS * 20, 300)


@pytest.mark.parametrize("make", [kinds.bpe, kinds.sentencepiece, kinds.extended_sentencepiece])
def test_every_token_is_found_by_how_it_is_written(tmp_path, make):
    make(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    written = {tokenizer.token(token): token for token in range(tokenizer.vocab_size)}
    for token, number in written.items():
        assert token is None or tokenizer.token_id(token) == number
    assert tokenizer.token_id("no such token") is None
    assert tokenizer.mask_id is tokenizer.cls_id is tokenizer.sep_id is None


def test_bytes_are_found_by_how_they_are_written():
    tokenizer = load_tokenizer("byte")
    assert tokenizer.token_id("<0x41>") == 65
    assert tokenizer.token_id("end of document") == tokenizer.eod_id
    assert tokenizer.token_id("A") is tokenizer.mask_id is None


def test_word_pieces_have_all_special_tokens_and_keep_them_in_their_files(pieces, tmp_path):
    pieces.save(tmp_path)
    for tokenizer in (pieces, load_tokenizer(tmp_path)):
        found = SpecialTokens(tokenizer, tokenizer.vocab_size)
        names = ("pad", "cls", "sep", "mask", "start", "eos")
        assert [found.find(name, None) for name in names] == [0, 2, 3, 4, 5, 6]
        assert found.sentinels(()) == tuple(range(7, 107))
        ids = tokenizer.encode("the dogtree walks")
        written = [tokenizer.token(token) for token in ids]
        assert written[-1] == "walks"
        assert any(token.startswith("##") for token in written)
        assert tokenizer.decode(ids) == "the dogtree walks"
    assert train_word_pieces(TEXTS * 20, 300).encode(TEXTS[0]) == pieces.encode(TEXTS[0])


def test_a_folders_own_names_come_first(pieces, tmp_path):
    pieces.save(tmp_path)
    names = {"cls_token": "[BOS]", "sep_token": "[EOS]", "mask_token": "<extra_id_3>", "pad_token": "[UNK]"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(names | {"eos_token": "[SEP]"}))
    found = SpecialTokens(load_tokenizer(tmp_path), 300)
    assert [found.find(name, None) for name in ("cls", "sep", "mask", "pad")] == [5, 6, 10, 1]
    assert found.find("start", None) == 5
    assert found.find("eos", None) == 6  # [EOS], which nothing but the end of a text is
    assert found.find("mask", "[MASK]") == 4
    assert found.find("mask", 299) == 299
    assert found.sentinels(("[SEP]", 9)) == (3, 9)


def test_a_lone_tokenizer_json_is_asked_for_the_usual_names(pieces, tmp_path):
    pieces.save(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    found = SpecialTokens(load_tokenizer(tmp_path), 300)
    assert [found.find(name, None) for name in ("pad", "cls", "sep", "mask", "start")] == [0, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (300, "data.mask = 300: the id must be from 0 to 299, as the vocabulary's are."),
        (-1, "data.mask = -1: the id must be from 0 to 299"),
        ("<mask>", 'data.mask = "<mask>": the tokenizer has no such token; give a token of its vocabulary'),
    ],
)
def test_what_no_vocabulary_has_is_refused(pieces, given, sentence):
    with pytest.raises(InputError) as refused:
        SpecialTokens(pieces, 300).find("mask", given)
    assert str(refused.value).startswith(sentence)


def test_without_a_tokenizer_only_ids_are_known():
    found = SpecialTokens(None, 300)
    assert found.find("mask", 7) == 7
    assert found.find_or_none("pad", None) is None
    for given, sentence in (
        (None, "there is no tokenizer to ask; give an id."),
        ("[MASK]", "there is no token"),
    ):
        with pytest.raises(InputError, match=sentence):
            found.find("mask", given)
    with pytest.raises(InputError, match=r"data.sentinels = \[\], and the tokenizer has no"):
        found.sentinels(())
