"""Tokenizers of Hugging Face folders: prompts, chats, special tokens, and that nothing is lost by saving."""

import json

import pytest
from tokenizer_kinds import tiktoken

from mjx.data.tokenizers import ChatTemplate, decode_continuation, load_tokenizer
from mjx.errors import InputError


def configure(folder, **settings):
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(config | settings))


def added(content, *, special):
    flags = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized"), False)
    return {"content": content, "special": special, **flags}


def test_a_prompt_begins_as_the_post_processor_says_and_training_data_does_not(metaspace_folder):
    tokenizer = load_tokenizer(metaspace_folder)
    ids = tokenizer.encode("the fox")
    assert tokenizer.bos_id not in ids
    assert tokenizer.encode_prompt("the fox") == [tokenizer.bos_id, *ids]
    assert tokenizer.encode_chat("<s>the fox</s>")[-1] == tokenizer.eod_id
    assert tokenizer.encode_chat("<s>the fox")[0] == tokenizer.bos_id
    assert tokenizer.decode(tokenizer.encode_prompt("the fox")) == "the fox"


def test_flags_do_not_overrule_the_post_processor_of_a_tokenizer_json(bpe_folder):
    plain = load_tokenizer(bpe_folder).encode("the fox")
    configure(bpe_folder, bos_token="<|endoftext|>", add_bos_token=True, add_eos_token=True)
    assert load_tokenizer(bpe_folder).encode_prompt("the fox") == plain


def test_vocab_and_merges_make_the_same_tokenizer_as_tokenizer_json(bpe_folder, request, samples):
    whole = load_tokenizer(bpe_folder)
    parts = load_tokenizer(request.getfixturevalue("merges_folder"))
    for text in samples:
        assert parts.encode(text) == whole.encode(text)
        assert parts.decode(parts.encode(text)) == whole.decode(whole.encode(text))
    assert parts.vocab_size == whole.vocab_size
    assert (parts.eod_id, parts.bos_id) == (0, 0)


def test_vocab_and_merges_honour_the_flags(merges_folder):
    configure(merges_folder, add_bos_token=True, add_eos_token=True)
    tokenizer = load_tokenizer(merges_folder)
    assert tokenizer.encode_prompt("the fox") == [0, *tokenizer.encode("the fox"), 0]


def test_vocab_and_merges_of_an_unknown_way_to_cut_text_are_refused(merges_folder):
    configure(merges_folder, tokenizer_class="Qwen2Tokenizer")
    with pytest.raises(InputError, match="Qwen2Tokenizer, which do not tell how it cuts text"):
        load_tokenizer(merges_folder)
    (merges_folder / "tokenizer_config.json").unlink()
    (merges_folder / "vocab.json").write_text('{"a</w>": 0}')
    with pytest.raises(InputError, match="not the vocabulary of a byte-level BPE"):
        load_tokenizer(merges_folder)


def test_merges_that_are_missing_or_wrong_are_a_sentence(merges_folder):
    (merges_folder / "merges.txt").write_text("#version: 0.2\nno such\n")
    with pytest.raises(InputError, match=r"merges\.txt beside it are no BPE"):
        load_tokenizer(merges_folder)
    (merges_folder / "merges.txt").unlink()
    with pytest.raises(InputError, match=r"merges\.txt beside it are no BPE"):
        load_tokenizer(merges_folder)


def test_added_tokens_are_matched_first_and_only_special_ones_are_hidden(bpe_folder):
    size = load_tokenizer(bpe_folder).vocab_size
    decoder = {str(size): added("<|im_end|>", special=True), str(size + 1): added("<tool>", special=False)}
    configure(bpe_folder, added_tokens_decoder=decoder, eos_token="<|im_end|>")
    tokenizer = load_tokenizer(bpe_folder)
    assert (tokenizer.vocab_size, tokenizer.eod_id) == (size + 2, size)
    ids = tokenizer.encode_chat("the <tool> fox<|im_end|>")
    assert (ids.count(size), ids.count(size + 1)) == (1, 1)
    assert tokenizer.decode(ids) == "the <tool> fox"


def test_a_token_that_is_named_is_special_though_the_vocabulary_has_it_as_a_word(bpe_folder):
    content = json.loads((bpe_folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["<end>"] = len(content["model"]["vocab"])
    (bpe_folder / "tokenizer.json").write_text(json.dumps(content))
    configure(bpe_folder, eos_token="<end>")
    tokenizer = load_tokenizer(bpe_folder)
    assert tokenizer.encode_chat("a<end>")[-1] == tokenizer.eod_id
    assert tokenizer.decode(tokenizer.encode_chat("a<end>")) == "a"


def test_older_folders_name_their_tokens_in_other_files(bpe_folder):
    size = load_tokenizer(bpe_folder).vocab_size
    (bpe_folder / "tokenizer_config.json").unlink()
    (bpe_folder / "added_tokens.json").write_text(json.dumps({"<pad>": size, "<x>": size + 1}))
    names = {"pad_token": "<pad>", "eos_token": {"content": "<x>"}}
    (bpe_folder / "special_tokens_map.json").write_text(json.dumps(names))
    tokenizer = load_tokenizer(bpe_folder)
    assert (tokenizer.pad_id, tokenizer.eod_id, tokenizer.vocab_size) == (size, size + 1, size + 2)


def test_a_name_without_a_token_does_not_enlarge_the_vocabulary(bpe_folder):
    size = load_tokenizer(bpe_folder).vocab_size
    configure(bpe_folder, mask_token="<mask>", additional_special_tokens=["<nowhere>"])
    assert load_tokenizer(bpe_folder).vocab_size == size


def test_nothing_is_lost_by_saving(bpe_folder, tmp_path_factory):
    size = load_tokenizer(bpe_folder).vocab_size
    decoder = {str(size + i): added(f"<{i}>", special=True) for i in range(3)}
    configure(
        bpe_folder,
        chat_template="{{ messages[0].content }}{{ eos_token }}",
        added_tokens_decoder=decoder,
        model_max_length=77,
        mask_token="<1>",
        pad_token="<2>",
    )
    (bpe_folder / "chat_template.jinja").write_text("J{{ eos_token }}")
    (bpe_folder / "special_tokens_map.json").write_text("{}")
    (bpe_folder / "additional_chat_templates").mkdir()
    (bpe_folder / "additional_chat_templates" / "tools.jinja").write_text("T")

    def files(folder):
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }

    expected = files(bpe_folder)
    (bpe_folder / "weights.bin").write_text("not a tokenizer's file")
    first, second = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    load_tokenizer(bpe_folder).save(first)
    load_tokenizer(first).save(second)
    assert files(first) == expected == files(second)
    assert len(expected) == 5
    template = ChatTemplate.from_folder(second)
    assert template is not None
    assert template.render([{"role": "user", "content": "x"}]) == "J<|endoftext|>"


def test_a_saved_sentencepiece_folder_keeps_its_flags_and_template(sentencepiece_folder, tmp_path_factory):
    configure(sentencepiece_folder, add_bos_token=True, chat_template="hi", eos_token="</s>")
    saved = tmp_path_factory.mktemp("saved")
    load_tokenizer(sentencepiece_folder).save(saved)
    assert load_tokenizer(saved).encode_prompt("the fox")[0] == 1
    assert ChatTemplate.from_folder(saved) is not None


def test_sentencepiece_prompts_begin_as_the_flags_say(sentencepiece_folder):
    bare = load_tokenizer(sentencepiece_folder)
    ids = bare.encode("the fox")
    assert bare.encode_prompt("the fox") == ids
    configure(sentencepiece_folder, add_bos_token=True)
    assert load_tokenizer(sentencepiece_folder).encode_prompt("the fox") == [1, *ids]
    configure(sentencepiece_folder, add_eos_token=True)
    assert load_tokenizer(sentencepiece_folder).encode_prompt("the fox") == [1, *ids, 2]


@pytest.mark.parametrize("legacy", [False, True])
def test_sentencepiece_chats_have_a_space_after_special_tokens_only_in_legacy_folders(
    sentencepiece_folder, legacy
):
    configure(sentencepiece_folder, legacy=legacy)
    tokenizer = load_tokenizer(sentencepiece_folder)
    ids = tokenizer.encode_chat("<s>[INST] the fox [/INST]</s>")
    assert (ids[0], ids[-1]) == (1, 2)
    inside = tokenizer.encode("[INST] the fox [/INST]")
    assert (ids[1:-1] == inside) is legacy
    assert tokenizer.decode(ids) == "[INST] the fox [/INST]"
    assert 1 not in tokenizer.encode("<s>")


def test_tokens_that_a_folder_adds_to_a_sentencepiece_model(sentencepiece_folder):
    size = load_tokenizer(sentencepiece_folder).vocab_size
    decoder = {str(size): added("<|im_end|>", special=True), str(size + 1): added("<tool>", special=False)}
    configure(sentencepiece_folder, added_tokens_decoder=decoder, eos_token="<|im_end|>")
    tokenizer = load_tokenizer(sentencepiece_folder)
    assert (tokenizer.eod_id, tokenizer.vocab_size) == (size, size + 2)
    ids = tokenizer.encode_chat("the <tool>fox<|im_end|>")
    assert tokenizer.decode(ids) == "the <tool>fox"
    assert [token for token in ids if token >= size] == [size + 1, size]


def test_spaces_of_byte_pairs_are_not_cleaned_up(bpe_folder):
    configure(bpe_folder, clean_up_tokenization_spaces=True)
    tokenizer = load_tokenizer(bpe_folder)
    assert tokenizer.decode(tokenizer.encode("so . it 's")) == "so . it 's"


def test_word_pieces_stand_between_their_special_tokens(word_piece_folder):
    tokenizer = load_tokenizer(word_piece_folder)
    ids = tokenizer.encode_prompt("the fox, what?")
    assert (ids[0], ids[-1]) == (2, 3)
    assert tokenizer.decode(ids) == "the fox, what?"  # and not "the fox , what ?"
    assert tokenizer.eod_id is None
    assert tokenizer.pad_id == 0


@pytest.mark.parametrize("folder", ["metaspace_folder", "sentencepiece_folder", "bpe_folder"])
def test_a_continuation_has_the_space_that_decoding_alone_would_drop(folder, request):
    tokenizer = load_tokenizer(request.getfixturevalue(folder))
    ids = tokenizer.encode("the fox 🙂 dog")
    for cut in range(len(ids)):
        before, after = ids[:cut], ids[cut:]
        prompt = tokenizer.decode(before).rstrip("\N{REPLACEMENT CHARACTER}")
        assert prompt + decode_continuation(tokenizer, before, after) == "the fox 🙂 dog"


def test_llama_3s_tiktoken_file_reads_chats(tmp_path):
    tokenizer = load_tokenizer(tiktoken(tmp_path, 128000, "tokenizer.model").parent)
    assert tokenizer.encode_chat("<|begin_of_text|>a<|eot_id|>") == [128000, ord("a"), 128009]
    assert len(tokenizer.encode("<|eot_id|>")) == len("<|eot_id|>")


def test_bytes_have_no_special_tokens_in_text():
    tokenizer = load_tokenizer("byte")
    assert tokenizer.encode_prompt("a<s>") == tokenizer.encode_chat("a<s>") == list(b"a<s>")


def test_prompts_are_encoded_together_as_each_alone(bpe_folder, sentencepiece_folder):
    for tokenizer in map(load_tokenizer, (bpe_folder, sentencepiece_folder, "byte")):
        texts = ["the fox", "", "what?"]
        assert tokenizer.encode_prompts(texts) == [tokenizer.encode_prompt(text) for text in texts]
