"""Tokenizers of every kind: round trips, special tokens, saving, and what is no tokenizer."""

import json

import pytest
from sentencepiece_model import train_sentencepiece
from tokenizer_kinds import tiktoken

from mjx.data.tokenizers import load_tokenizer, train_bpe
from mjx.data.tokenizers.byte import ByteTokenizer
from mjx.errors import InputError

TEXT = "Hello, wörld! 数字 123\n\n  tabs\tand 🙂 emoji"


@pytest.fixture(scope="module")
def texts():
    return [
        f"the {a} {b} of {a}s, number {i}" for i, a in enumerate("abcdefg") for b in ("cat", "dog", "tree")
    ]


@pytest.fixture(params=["byte", "bpe", "sentencepiece", "tiktoken"])
def tokenizer(request, tmp_path, texts):
    if request.param == "byte":
        return load_tokenizer("byte")
    if request.param == "bpe":
        return train_bpe(texts, 400)
    if request.param == "sentencepiece":
        return load_tokenizer(train_sentencepiece(tmp_path, texts, 320))
    return load_tokenizer(tiktoken(tmp_path))


def test_text_comes_back(tokenizer):
    for text in (TEXT, "", "a", " a"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert max(tokenizer.encode(TEXT)) < tokenizer.vocab_size


def test_a_batch_is_encoded_as_its_texts_are(tokenizer, texts):
    some = [*texts[:5], TEXT, ""]
    assert tokenizer.encode_batch(some) == [tokenizer.encode(text) for text in some]


def test_the_end_of_document_token_is_not_made_by_text_and_not_shown(tokenizer):
    assert 0 <= tokenizer.eod_id < tokenizer.vocab_size
    assert tokenizer.eod_id not in tokenizer.encode(TEXT)
    assert tokenizer.decode([*tokenizer.encode("the end"), tokenizer.eod_id]) == "the end"


def test_a_saved_tokenizer_is_found_again_by_its_folder(tokenizer, tmp_path, texts):
    tokenizer.save(tmp_path / "run")
    again = load_tokenizer(tmp_path / "run")
    assert type(again) is type(tokenizer)
    for text in (*texts, TEXT):
        assert again.encode(text) == tokenizer.encode(text)
    ids = ("vocab_size", "eod_id", "bos_id", "pad_id")
    assert [getattr(again, name) for name in ids] == [getattr(tokenizer, name) for name in ids]


def test_capitals_in_the_name_of_a_file_do_not_matter(tmp_path, texts):
    train_bpe(texts, 400).save(tmp_path)
    other = tmp_path / "MINE.JSON"
    (tmp_path / "tokenizer.json").rename(other)
    assert load_tokenizer(other).encode(TEXT) == train_bpe(texts, 400).encode(TEXT)


def test_training_is_deterministic_and_keeps_the_size(texts, tmp_path):
    first, second = (train_bpe(texts, 280) for _ in range(2))
    assert first.vocab_size == 280
    assert first.tokenizer.to_str() == second.tokenizer.to_str()


def test_a_vocabulary_too_small_for_bytes_is_refused(texts):
    with pytest.raises(InputError, match="vocab_size = 256 leaves no room"):
        train_bpe(texts, 256)


def test_special_tokens_are_those_of_tokenizer_config(tmp_path, texts):
    train_bpe(texts, 300).save(tmp_path)
    config = {"eos_token": {"content": "a"}, "bos_token": "b", "pad_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.eod_id, tokenizer.bos_id) == (tokenizer.encode("a")[0], tokenizer.encode("b")[0])
    assert tokenizer.pad_id is None


def test_a_lone_tokenizer_json_ends_documents_by_a_known_token(tmp_path, texts):
    train_bpe(texts, 300).save(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    assert load_tokenizer(tmp_path / "tokenizer.json").eod_id == 0


def test_llama_3s_tokenizer_model_is_a_tiktoken_file(tmp_path):
    tokenizer = load_tokenizer(tiktoken(tmp_path, 128000, "tokenizer.model"))
    assert (tokenizer.bos_id, tokenizer.eod_id, tokenizer.vocab_size) == (128000, 128001, 128256)


@pytest.mark.parametrize("count", [50256, 128000])
def test_more_white_space_than_tiktoken_can_match_is_encoded_in_parts(tmp_path, count):
    tokenizer = load_tokenizer(tiktoken(tmp_path, count))
    for space in (" ", "\n", " \t"):
        text = f"the{space * (1_200_000 // len(space))}lo"
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.encode_chat(text) == ids
        assert tokenizer.encode_batch(["the", text, ""]) == [tokenizer.encode("the"), ids, []]


def test_patterns_cut_text_as_the_published_ones_do(monkeypatch):
    public = pytest.importorskip("tiktoken_ext.openai_public")
    regex = pytest.importorskip("regex")
    monkeypatch.setattr(public, "load_tiktoken_bpe", lambda *arguments, **options: {})

    from mjx.data.tokenizers.tiktoken import _ENCODINGS

    sample = f"{TEXT} It's 12345 DON'T\r\n\n x==y//z  ümlaut's end  \n"
    for count, made in {
        50256: public.r50k_base,
        100256: public.cl100k_base,
        199998: public.o200k_base,
    }.items():
        published, ours = made(), _ENCODINGS[count]
        assert regex.findall(ours.pattern, sample) == regex.findall(published["pat_str"], sample)
        assert ours.special_tokens == published["special_tokens"]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("tokenizer.json", b"{}", "is not a tokenizer.json"),
        ("tokenizer.model", b"nonsense", "is not a SentencePiece model"),
        ("x.tiktoken", b"YQ== 0\nnonsense\n", "line 2: not a token in base64"),
        ("x.tiktoken", b"YQ== 0\n", "has 1 ranks"),
        ("tokenizer.bin", b"x", "is of no known kind"),
    ],
)
def test_what_is_no_tokenizer_is_refused_by_its_name(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=sentence) as error:
        load_tokenizer(tmp_path / name)
    assert name in str(error.value)


def test_a_missing_tokenizer_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_tokenizer(tmp_path / "none.json")
    with pytest.raises(InputError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(InputError, match=r"needs the package tiktoken: pip install 'mjx\[data\]'"):
        load_tokenizer(tiktoken(tmp_path))


def test_bytes_that_are_no_text_do_not_stop_decoding():
    assert ByteTokenizer().decode([72, 255, 105, 256]) == "H\N{REPLACEMENT CHARACTER}i"
