"""What all kinds of tokenizer must do alike, where their libraries differ."""

import numpy as np
import pytest
from tokenizer_kinds import KINDS

from mjx.data.tokenizers import decode_continuation, load_tokenizer
from mjx.errors import InputError

TEXT = "the fox, what? (dog)"
ODD = (
    "\N{GRINNING FACE}",
    "a\0b",
    "\N{ZERO WIDTH NO-BREAK SPACE}the",
    "e\N{COMBINING ACUTE ACCENT}",
    "the\r\nfox",
)
LONG = 50_000


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    KINDS[request.param](folder)
    return load_tokenizer(folder)


def test_ids_that_no_token_has_are_left_out(tokenizer):
    ids, size = tokenizer.encode(TEXT), tokenizer.vocab_size
    for foreign in (size, size + 1, 2**31 - 1, 2**31, 2**40, -1, -size):
        assert tokenizer.token(foreign) is None
        assert tokenizer.decode([foreign]) == ""
        assert tokenizer.decode([foreign, *ids, foreign]) == tokenizer.decode(ids)


def test_every_id_of_the_vocabulary_can_be_decoded_and_those_of_a_text_are_named(tokenizer):
    size = tokenizer.vocab_size
    for token in {*range(min(size, 600)), *range(max(0, size - 300), size)}:
        assert isinstance(tokenizer.decode([token]), str)
        assert isinstance(tokenizer.token(token), str | None)
    for token in {*tokenizer.encode_prompt(TEXT), *(tokenizer.encode(text)[0] for text in ODD)}:
        assert 0 <= token < size
        assert tokenizer.token(token)


def test_an_array_of_ids_is_decoded_as_a_list_is(tokenizer):
    ids = tokenizer.encode(TEXT)
    for dtype in (np.int32, np.uint16, np.int64):
        assert tokenizer.decode(np.array(ids, dtype)) == tokenizer.decode(ids)


def test_no_text_has_no_ids_and_no_ids_no_text(tokenizer):
    assert tokenizer.encode("") == tokenizer.encode_chat("") == []
    assert tokenizer.encode_batch([]) == []
    assert tokenizer.encode_batch(["", TEXT, ""]) == [[], tokenizer.encode(TEXT), []]
    assert tokenizer.decode([]) == tokenizer.decode(np.zeros(0, np.int32)) == ""
    assert tokenizer.decode(tokenizer.encode_prompt("")) == ""


def test_half_of_a_surrogate_pair_is_refused_by_its_place(tokenizer):
    for broken in ("ab\ud83d", "ab\udcffc"):
        for encode in (tokenizer.encode, tokenizer.encode_prompt, tokenizer.encode_chat):
            with pytest.raises(InputError, match="half of a surrogate pair at character 3"):
                encode(broken)
        with pytest.raises(InputError, match="half of a surrogate pair at character 3"):
            tokenizer.encode_batch([TEXT, broken])


def test_odd_characters_are_encoded_alone_as_in_a_batch(tokenizer):
    assert tokenizer.encode_batch(ODD) == [tokenizer.encode(text) for text in ODD]


def test_special_tokens_in_a_prompt_are_recognised_and_not_shown(tokenizer):
    if tokenizer.eod_id is None or type(tokenizer).__name__ == "ByteTokenizer":
        pytest.skip("it has no special token that can be written")
    written = f"the{tokenizer.token(tokenizer.eod_id)}fox"
    for encode in (tokenizer.encode_prompt, tokenizer.encode_chat):
        ids = encode(written)
        assert ids.count(tokenizer.eod_id) == 1
        # Llama 2's puts a space before the word that follows.
        assert tokenizer.decode(ids).replace(" ", "") == "thefox"


def test_a_text_that_comes_token_by_token_is_the_whole_text(tokenizer):
    text = "the fox, what?" if "[UNK]" in (tokenizer.token(1) or "") else f"{TEXT} 🙂 数"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    for cut in range(len(ids) + 1):
        before = tokenizer.decode(ids[:cut]).rstrip("\N{REPLACEMENT CHARACTER}")
        assert before + decode_continuation(tokenizer, ids[:cut], ids[cut:]) == text


@pytest.mark.parametrize("piece", ["a", " ", "\n", "the ", "?", "数", "🙂"])
def test_a_very_long_text_is_encoded(tokenizer, piece):
    text = piece * (LONG // len(piece))
    ids = tokenizer.encode(text)
    if "[UNK]" not in (tokenizer.token(1) or ""):  # word pieces know no long words and no spaces
        assert tokenizer.decode(ids) == text
    assert tokenizer.encode_batch([text]) == [ids]
