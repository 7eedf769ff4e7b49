"""The tokenizer and chat template of a real model, against numbers of transformers."""

import json
from pathlib import Path

import pytest

from mjx.data.tokenizers import ChatTemplate, load_tokenizer

GOLDENS = Path(__file__).parents[2] / "goldens" / "huggingface"
GOLDEN = json.loads((GOLDENS / "smollm2.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tokenizer(smollm2):
    return load_tokenizer(smollm2)


def test_a_question_becomes_the_prompt_of_transformers(smollm2, tokenizer):
    chat, template = GOLDEN["chat"], ChatTemplate.from_folder(smollm2)
    assert template is not None
    assert template.render([{"role": "user", "content": chat["question"]}]) == chat["prompt"]
    assert tokenizer.encode_chat(chat["prompt"]) == chat["prompt_ids"]
    assert tokenizer.decode(chat["answer_ids"]) == chat["answer"]


def test_a_text_has_the_tokens_of_transformers(tokenizer):
    text = (GOLDENS / GOLDEN["text"]["file"]).read_text(encoding="utf-8")
    ids = tokenizer.encode_prompt(text)
    assert len(ids) == GOLDEN["text"]["tokens"]
    assert (ids[:8], ids[-8:]) == (GOLDEN["text"]["first_ids"], GOLDEN["text"]["last_ids"])
    assert tokenizer.decode(ids) == text


def test_a_completion_is_spelled_as_by_transformers(tokenizer):
    completion = GOLDEN["completion"]
    assert tokenizer.encode_prompt(completion["prompt"]) == completion["prompt_ids"]
    assert tokenizer.decode(completion["new_ids"]) == completion["text"]


def test_its_special_tokens_are_found(tokenizer):
    assert (tokenizer.bos_id, tokenizer.eod_id, tokenizer.pad_id, tokenizer.vocab_size) == (1, 2, 2, 49152)
