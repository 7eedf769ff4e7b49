"""Texts continued by a model of tokens."""

import dataclasses
from collections.abc import Sequence

from mjx.data.tokenizers import ChatTemplate, Tokenizer, decode_continuation
from mjx.errors import InputError
from mjx.inference.generate import Generator, check_prompts
from mjx.inference.sampling import SamplingConfig
from mjx.models.family import Generates


def continue_texts(
    generator: Generator,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    sampling: SamplingConfig,
    *,
    template: ChatTemplate | None = None,
) -> list[str]:
    """Each prompt with what the model makes of it, or with a template the answers alone; every process of
    the run calls this. A document's end ends a text, besides the tokens that `sampling` stops at."""
    if tokenizer.eod_id is not None:
        stops = sorted({*sampling.stop_tokens, tokenizer.eod_id})
        sampling = dataclasses.replace(sampling, stop_tokens=tuple(stops))
    if template is None:
        ids = [tokenizer.encode_prompt(prompt) for prompt in prompts]
        return [
            prompt + decode_continuation(tokenizer, before, tokens)
            for prompt, before, tokens in zip(prompts, ids, generator(ids, sampling), strict=True)
        ]
    chats = [template.render([{"role": "user", "content": prompt}]) for prompt in prompts]
    continued = generator([tokenizer.encode_chat(chat) for chat in chats], sampling)
    return [tokenizer.decode(tokens) for tokens in continued]


def check_texts(
    model: object, tokenizer: Tokenizer | None, prompts: Sequence[str], sampling: SamplingConfig
) -> None:
    """Raise `InputError` if `continue_texts` could not continue these prompts."""
    if not isinstance(model, Generates):
        raise InputError("the model does not continue text, so leave the prompts out")
    if tokenizer is None:
        raise InputError("a text needs data.tokenizer: name it, or leave the prompts out")
    check_prompts(model, [tokenizer.encode_prompt(prompt) for prompt in prompts], sampling)
