"""Texts continued by a model of tokens."""

import dataclasses
from collections.abc import Sequence

from mjx.data.config import DatasetConfig
from mjx.data.tokenizers import ChatTemplate, Tokenizer, decode_continuation
from mjx.errors import InputError
from mjx.inference.generate import Generator
from mjx.inference.prompts import check_prompts
from mjx.inference.sampling import SamplingConfig
from mjx.inference.seen_prompts import SeenPictures, seen_prompts
from mjx.models.family import Generates, Sees


def continue_texts(
    generator: Generator,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    sampling: SamplingConfig,
    *,
    template: ChatTemplate | None = None,
    data: DatasetConfig | None = None,
    pictures: SeenPictures | None = None,
) -> list[str]:
    """Each prompt with what the model makes of it, or the answers alone with a template, and of a model that
    reads prompts apart; every process of the run calls this. A document's end ends a text, besides the
    tokens that `sampling` stops at. `data` is what the model has learnt from, which says how a prompt is
    read. `pictures` stand in the prompts."""
    if tokenizer.eod_id is not None:
        stops = sorted({*sampling.stop_tokens, tokenizer.eod_id})
        sampling = dataclasses.replace(sampling, stop_tokens=tuple(stops))
    sampling = _started(generator.model, sampling, tokenizer, data)
    if pictures is not None:
        if not isinstance(generator.model, Sees):
            raise InputError("the model does not see pictures; leave them out")
        ids = seen_prompts(generator.model, tokenizer, prompts, pictures, template)
        continued = generator(ids, sampling, pictures=pictures.views)
        if template is not None:
            return [tokenizer.decode(tokens) for tokens in continued]
        return [
            prompt + decode_continuation(tokenizer, before, tokens)
            for prompt, before, tokens in zip(prompts, ids, continued, strict=True)
        ]
    if template is None:
        ids = _encoded(generator.model, tokenizer, prompts, data)
        if generator.model.answers:
            return [tokenizer.decode(tokens) for tokens in generator(ids, sampling)]
        return [
            prompt + decode_continuation(tokenizer, before, tokens)
            for prompt, before, tokens in zip(prompts, ids, generator(ids, sampling), strict=True)
        ]
    chats = [template.render([{"role": "user", "content": prompt}]) for prompt in prompts]
    continued = generator([tokenizer.encode_chat(chat) for chat in chats], sampling)
    return [tokenizer.decode(tokens) for tokens in continued]


def check_texts(
    model: object,
    tokenizer: Tokenizer | None,
    prompts: Sequence[str],
    sampling: SamplingConfig,
    data: DatasetConfig | None = None,
) -> None:
    """Raise `InputError` if `continue_texts` could not continue these prompts."""
    if not isinstance(model, Generates):
        raise InputError("the model does not continue text, so leave the prompts out")
    if tokenizer is None:
        raise InputError("a text needs data.tokenizer: name it, or leave the prompts out")
    sampling = _started(model, sampling, tokenizer, data)
    check_prompts(model, _encoded(model, tokenizer, prompts, data), sampling)


def _encoded(
    model: Generates, tokenizer: Tokenizer, prompts: Sequence[str], data: DatasetConfig | None
) -> list[list[int]]:
    if data is None:
        return tokenizer.encode_prompts(prompts)
    return data.prompts(tokenizer, prompts, model.vocab_size)


def _started(
    model: Generates, sampling: SamplingConfig, tokenizer: Tokenizer, data: DatasetConfig | None
) -> SamplingConfig:
    """With the token that the rows of `data` begin with, where the model asks for one and nothing else says
    it."""
    if not model.answers or sampling.start_token is not None or data is None:
        return sampling
    return dataclasses.replace(sampling, start_token=data.start_token(tokenizer, model.vocab_size))
