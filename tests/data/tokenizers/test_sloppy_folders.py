"""Hugging Face folders whose files say more than is there: what is not used is warned of, not refused."""

import json
import shutil

import pytest

from mjx.data.tokenizers import ChatTemplate, load_tokenizer
from mjx.errors import InputError

FLAGS = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized"), False)
FAR = {"9999": {"content": "<far>", "special": True, **FLAGS}}
NOWHERE = ("bos_token", "eos_token", "unk_token", "pad_token", "mask_token")


def write(folder, name, content):
    (folder / name).write_text(json.dumps(content))


@pytest.mark.parametrize("kind", ["bpe", "merges", "sentencepiece", "metaspace", "word_piece"])
@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
def test_names_without_a_token_are_as_good_as_unnamed(kind, file, request, caplog):
    folder = request.getfixturevalue(f"{kind}_folder")
    (folder / "tokenizer_config.json").unlink(missing_ok=True)
    write(folder, file, {name: {"content": f"<{name}>"} for name in NOWHERE})
    tokenizer = load_tokenizer(folder)
    own = (2, 1) if kind == "sentencepiece" else (None, None)  # those that the model itself names
    assert (tokenizer.eod_id, tokenizer.bos_id, tokenizer.pad_id) == (*own, None)
    assert tokenizer.decode(tokenizer.encode_prompt("the fox")) == "the fox"
    warned = [record.getMessage() for record in caplog.records]
    assert [message.partition(" is not in the vocabulary")[0] for message in warned] == [
        f'{name} = "<{name}>"' for name in NOWHERE[:4]
    ]


def test_prompts_begin_without_a_token_that_is_nowhere(merges_folder):
    write(merges_folder, "tokenizer_config.json", {"bos_token": "<nowhere>", "add_bos_token": True})
    tokenizer = load_tokenizer(merges_folder)
    assert tokenizer.encode_prompt("the fox") == tokenizer.encode("the fox")


def test_another_id_for_an_added_token_counts_only_where_no_file_knows_better(bpe_folder, request, caplog):
    size = load_tokenizer(bpe_folder).vocab_size
    write(bpe_folder, "tokenizer_config.json", {"added_tokens_decoder": FAR, "eos_token": "<|endoftext|>"})
    tokenizer = load_tokenizer(bpe_folder)
    assert f'"<far>" should have id 9999, but the vocabulary gives it {size}' in caplog.text
    assert (tokenizer.vocab_size, tokenizer.eod_id) == (size + 1, 0)
    assert tokenizer.encode_prompt("a<far>")[-1] == size
    merges = request.getfixturevalue("merges_folder")
    write(merges, "added_tokens.json", {"<far>": 9999})
    with pytest.raises(InputError, match='"<far>" should have id 9999'):
        load_tokenizer(merges)


def test_added_tokens_that_are_none_are_refused(bpe_folder):
    write(bpe_folder, "tokenizer_config.json", {"added_tokens_decoder": {"9999": "<far>"}})
    with pytest.raises(InputError, match=r"added tokens of .* cannot be read"):
        load_tokenizer(bpe_folder)


@pytest.mark.parametrize("extra", ["the", 7, True, ["the", 7, None, {"content": 3}], {"x": "the", "y": 7}])
def test_lists_of_special_tokens_may_hold_anything(bpe_folder, extra):
    plain = load_tokenizer(bpe_folder).encode("e h t")
    write(bpe_folder, "tokenizer_config.json", {"additional_special_tokens": extra})
    tokenizer = load_tokenizer(bpe_folder)
    assert tokenizer.encode("e h t") == plain
    assert tokenizer.decode(plain) == "e h t"  # and no letter of a text in the list's place is special


def test_files_with_a_byte_order_mark_are_read(bpe_folder):
    file = bpe_folder / "tokenizer_config.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert load_tokenizer(bpe_folder).eod_id == 0


def test_a_template_that_another_one_goes_before_is_not_read(bpe_folder):
    write(bpe_folder, "tokenizer_config.json", {"chat_template": "T{{ messages[0].content }}"})
    (bpe_folder / "chat_template.json").write_text("{")
    template = ChatTemplate.from_folder(bpe_folder)
    assert template is not None
    assert template.render([{"role": "user", "content": "x"}]) == "Tx"
    write(bpe_folder, "tokenizer_config.json", {})
    with pytest.raises(InputError, match=r"chat_template\.json is not JSON"):
        ChatTemplate.from_folder(bpe_folder)


def test_a_template_may_name_a_token_that_is_nowhere(bpe_folder):
    write(bpe_folder, "tokenizer_config.json", {"bos_token": "<b>", "chat_template": "{{ bos_token }}x"})
    template = ChatTemplate.from_folder(bpe_folder)
    assert template is not None
    chat = template.render([{"role": "user", "content": ""}])
    tokenizer = load_tokenizer(bpe_folder)
    assert tokenizer.encode_chat(chat) == tokenizer.encode("<b>x")


def test_a_tokenizer_that_is_not_the_first_choice_may_be_broken(bpe_folder):
    shutil.copy(bpe_folder / "tokenizer.json", bpe_folder / "vocab.json")
    (bpe_folder / "tokenizer.model").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert load_tokenizer(bpe_folder).eod_id == 0
