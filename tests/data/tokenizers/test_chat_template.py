"""Chat templates: where they stand, what they may use, how they fail."""

import datetime
import json

import pytest

from mjx.data.tokenizers import ChatTemplate
from mjx.errors import InputError

CHATML = (
    "{% for message in messages %}\n"
    "    {% if loop.first and message.role != 'system' %}\n"
    "{{ '<|im_start|>system\\nBe kind<|im_end|>\\n' }}{% endif %}\n"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>\\n' }}"
    "{% endfor %}\n"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
QUESTION = [{"role": "user", "content": " Why? "}]


def test_a_chat_is_written_out_with_the_beginning_of_the_answer():
    template = ChatTemplate(CHATML, {})
    asked = "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n"
    assert template.render(QUESTION) == asked + "<|im_start|>assistant\n"
    assert template.render(QUESTION, add_generation_prompt=False) == asked
    answered = [*QUESTION, {"role": "assistant", "content": "So."}]
    assert template.render(answered, add_generation_prompt=False) == (
        asked + "<|im_start|>assistant\nSo.<|im_end|>\n"
    )


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ pad_token }}", "<s> Why? </s>"),
        ("{% for m in messages %}{% if m.role == 'user' %}{% break %}{% endif %}x{% endfor %}y", "y"),
        ("{% for m in [1, 2, 3] %}{% if m == 2 %}{% continue %}{% endif %}{{ m }}{% endfor %}", "13"),
        ("{{ {'a': '<&>', 'b': 'ü'} | tojson }}", '{"a": "<&>", "b": "ü"}'),
        (
            "{{ {'b': 1, 'a': [2]} | tojson(indent=2, sort_keys=true) }}",
            '{\n  "a": [\n    2\n  ],\n  "b": 1\n}',
        ),
        ("{{ [1, 2] | tojson(separators=(',', ':')) }}", "[1,2]"),
        ("a{% generation %} answer{% endgeneration %}!", "a answer!"),
        ("  {% if true %}\n  x\n  {%- endif %}\n", "  x"),
        ("{% if tools is defined and tools %}tools{% elif documents %}documents{% endif %}", ""),
        (
            "{% set n = namespace(x=0) %}{% for m in [4, 5] %}{% set n.x = n.x + m %}{% endfor %}{{ n.x }}",
            "9",
        ),
        ("{{ nobody }}{{ messages[0].nothing is defined }}", "False"),
    ],
)
def test_what_templates_are_written_with(source, text):
    assert ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"}).render(QUESTION) == text


def test_the_date_is_todays():
    year = datetime.datetime.now().strftime("%Y")
    assert ChatTemplate("{{ strftime_now('%Y') }}", {}).render(QUESTION) == year


def test_a_missing_content_is_missing_and_not_none():
    template = ChatTemplate(
        "{% if messages[0].content is defined %}{{ messages[0].content }}{% endif %}.", {}
    )
    assert template.render([{"role": "assistant", "content": None}]) == "."  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (
            "{{ raise_exception('Roles must alternate') }}",
            "cannot render these messages: Roles must alternate",
        ),
        ("{{ messages[0].content + 1 }}", "cannot render these messages"),
        ("{{ messages[9].content.x }}", "cannot render these messages"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ messages.append(1) }}", "cannot render these messages"),
    ],
)
def test_what_fails_inside_a_template_is_a_sentence(source, sentence):
    with pytest.raises(InputError, match=sentence):
        ChatTemplate(source, {}, "chat_template of x.json").render(QUESTION)


def test_what_is_no_template_is_refused_with_its_line():
    with pytest.raises(InputError, match=r"x\.json is not a Jinja template: .* \(line 2\)"):
        ChatTemplate("ok\n{% if %}", {}, "chat_template of x.json")
    with pytest.raises(InputError, match="at least one message"):
        ChatTemplate("", {}).render([])


def write(folder, **files):
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def rendered(folder):
    template = ChatTemplate.from_folder(folder)
    assert template is not None
    return template.render(QUESTION)


def test_a_folder_without_a_template_has_none(tmp_path):
    assert ChatTemplate.from_folder(tmp_path) is None
    write(tmp_path, tokenizer_config={"eos_token": "</s>"})
    assert ChatTemplate.from_folder(tmp_path) is None


def test_a_template_is_found_wherever_folders_have_it(tmp_path):
    write(tmp_path, chat_template={"chat_template": "processor{{ eos_token }}"})
    assert rendered(tmp_path) == "processor"
    listed = [
        {"name": "tool_use", "template": "tools"},
        {"name": "default", "template": "list{{ eos_token }}"},
    ]
    write(tmp_path, tokenizer_config={"chat_template": listed, "eos_token": {"content": "</s>"}})
    assert rendered(tmp_path) == "list</s>"
    write(tmp_path, tokenizer_config={"chat_template": "text{{ bos_token }}", "bos_token": "<s>"})
    assert rendered(tmp_path) == "text<s>"
    (tmp_path / "chat_template.jinja").write_text("file{{ bos_token }}ü", encoding="utf-8")
    assert rendered(tmp_path) == "file<s>ü"


def test_special_tokens_of_older_folders_are_known_to_the_template(tmp_path):
    write(tmp_path, special_tokens_map={"eos_token": {"content": "<end>"}}, tokenizer_config={})
    (tmp_path / "chat_template.jinja").write_text("{{ eos_token }}")
    assert rendered(tmp_path) == "<end>"


def test_a_template_of_another_shape_is_refused(tmp_path):
    write(tmp_path, tokenizer_config={"chat_template": [{"name": "default"}]})
    with pytest.raises(InputError, match="must be a text or a list of objects with name and template"):
        ChatTemplate.from_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(InputError, match="must hold a JSON object, not list"):
        ChatTemplate.from_folder(tmp_path)
