"""Token ids, decoded text and rendered chats equal those of transformers, where it is installed."""

import json
import random

import pytest

from mjx.data.tokenizers import ChatTemplate, load_tokenizer
from mjx.errors import InputError

pytestmark = pytest.mark.parity
FLAGS = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized"), False)


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="parity is with a live transformers")


def configure(folder, settings):
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(config | settings))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("bpe", {}),
        ("bpe", {"add_bos_token": True, "bos_token": "<|endoftext|>", "add_eos_token": True}),
        ("bpe", {"clean_up_tokenization_spaces": True}),
        (
            "bpe",
            {
                "eos_token": "<|im_end|>",
                "added_tokens_decoder": {
                    "356": {"content": "<|im_start|>", "special": True, **FLAGS},
                    "357": {"content": "<|im_end|>", "special": True, **FLAGS},
                    "358": {"content": "<tool>", "special": False, **FLAGS, "lstrip": True},
                },
            },
        ),
        ("merges", {"tokenizer_class": "GPT2Tokenizer"}),
        ("merges", {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "add_prefix_space": True}),
        ("metaspace", {}),
        ("word_piece", {}),
    ],
)
def test_ids_and_text_equal_transformers(transformers, kind, settings, request, samples):
    folder = request.getfixturevalue(f"{kind}_folder")
    configure(folder, settings)
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = load_tokenizer(folder)
    assert (ours.eod_id, ours.pad_id) == (theirs.eos_token_id, theirs.pad_token_id)
    assert ours.vocab_size == len(theirs)
    for text in samples:
        ids = theirs(text)["input_ids"]
        assert ours.encode_prompt(text) == ids
        assert ours.encode_chat(text) == theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    numbers = random.Random(0)
    for _ in range(200):
        ids = [numbers.randrange(ours.vocab_size) for _ in range(6)]
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


def test_sentencepiece_folders_equal_transformers(transformers, sentencepiece_folder, samples):
    # transformers' own conversion of such a file forgets scores, so that runs of spaces differ.
    settings = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "legacy": False}
    configure(sentencepiece_folder, settings | {"add_bos_token": True, "tokenizer_class": "LlamaTokenizer"})
    (sentencepiece_folder / "config.json").write_text('{"model_type": "llama"}')
    theirs = transformers.AutoTokenizer.from_pretrained(sentencepiece_folder)
    ours = load_tokenizer(sentencepiece_folder)
    for text in samples:
        if text.startswith(" ") or "  " in text:
            continue
        ids = theirs(text)["input_ids"]
        assert ours.encode_prompt(text) == ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


CHATS = [
    [{"role": "user", "content": "What is <b>1 & 2</b>?"}],
    [
        {"role": "system", "content": " Be brief. "},
        {"role": "user", "content": "Hi\n"},
        {"role": "assistant", "content": "Hello 'you'"},
        {"role": "user", "content": "Ünïcödé 你好"},
    ],
    [{"role": "assistant", "content": "first"}, {"role": "user", "content": "x"}],
]
TEMPLATES = {
    "chatml": """{% for message in messages %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}""",
    "headers": """{{- bos_token }}
{%- for message in messages %}
    {{- '<|header|>' + message.role + '<|end|>\n\n' }}
    {{- message.content | trim }}{{ eos_token }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|header|>assistant<|end|>\n\n' }}
{%- endif %}
""",
    "alternating": """{% if messages[0].role == 'system' %}
{% set system = messages[0].content %}{% set messages = messages[1:] %}{% endif %}
{{ bos_token }}
{% for message in messages %}
    {% if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('must alternate') }}
    {% endif %}
    {% if message.role == 'user' %}
[INST] {{ system | default('') }}{{ message.content }} [/INST]
    {% else %}
{% generation %} {{ message.content }}{{ eos_token }}{% endgeneration %}
    {% endif %}
{% endfor %}""",
    "json": """{%- set ns = namespace(last=none) -%}
{% for message in messages %}
  {% set ns.last = message %}
  {% if loop.index > 3 %}{% break %}{% endif %}
{{ message | tojson }}{{ message | tojson(indent=2) }}
{% endfor %}
{{ ns.last.role | upper }} {{ strftime_now('%Y') }} {{ tools }} {{ messages | length }}
""",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_chats_equal_transformers(transformers, name, bpe_folder):
    (bpe_folder / "chat_template.jinja").write_text(TEMPLATES[name])
    configure(bpe_folder, {"bos_token": "<|endoftext|>"})
    theirs = transformers.AutoTokenizer.from_pretrained(bpe_folder)
    ours = ChatTemplate.from_folder(bpe_folder)
    assert ours is not None
    for chat in CHATS:
        for begin in (True, False):
            try:
                expected = theirs.apply_chat_template(chat, tokenize=False, add_generation_prompt=begin)
            except Exception:
                with pytest.raises(InputError):
                    ours.render(chat, add_generation_prompt=begin)
                continue
            rendered = ours.render(chat, add_generation_prompt=begin)
            assert rendered == expected
            ids = theirs.apply_chat_template(chat, add_generation_prompt=begin)["input_ids"]
            assert load_tokenizer(bpe_folder).encode_chat(rendered) == ids


def test_a_saved_folder_is_the_same_to_transformers(
    transformers, metaspace_folder, tmp_path_factory, samples
):
    (metaspace_folder / "chat_template.jinja").write_text(TEMPLATES["chatml"])
    saved = tmp_path_factory.mktemp("saved")
    load_tokenizer(metaspace_folder).save(saved)
    for folder in (metaspace_folder, saved):
        (folder / "config.json").write_text('{"model_type": "llama"}')
    before, after = (transformers.AutoTokenizer.from_pretrained(path) for path in (metaspace_folder, saved))
    assert after.chat_template == before.chat_template
    assert after.special_tokens_map == before.special_tokens_map
    assert [after(text)["input_ids"] for text in samples] == [before(text)["input_ids"] for text in samples]
