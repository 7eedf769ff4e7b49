"""Prompts, checked, and in arrays of few distinct sizes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mjx.errors import InputError
from mjx.inference.rows import rounded
from mjx.inference.sampling import SamplingConfig
from mjx.models.common.pictures import View
from mjx.models.family import Begun, Generates, Sees


class LaidPrompts(NamedTuple):
    """Prompts in arrays."""

    prompt: dict[str, np.ndarray]
    """For `begin`."""
    parts: list[tuple[np.ndarray, np.int32]]
    """For `read_on`: tokens, and the place of the first."""
    rows: np.ndarray
    """All tokens of the rows that texts continue; none where nothing asks for them."""
    lengths: np.ndarray
    """Tokens of those rows."""
    slots: int
    """Tokens that caches and texts have room for."""


def lay_prompts(
    model: Generates,
    prompts: Sequence[Sequence[int]],
    config: SamplingConfig,
    shards: int,
    pictures: Sequence[Sequence[View]] = (),
) -> LaidPrompts | None:
    """The prompts in arrays, whose number of rows `shards` divides; None: there are none. `pictures` stand in
    each prompt's image tokens.

    Raises:
        InputError: as `check_prompts`; or a prompt has not the image tokens of its pictures.
    """
    if not prompts:
        return None
    begun = check_prompts(model, prompts, config)
    longest, chunk = max(map(len, begun.rows)), config.prefill_chunk
    if longest <= chunk:
        chunk = rounded(longest, 16)
    width = -(-longest // chunk) * chunk
    filled = max(longest + config.max_new_tokens, width)
    slots = rounded(filled if model.caches_grow else config.max_new_tokens, 64)
    batch = -(-len(prompts) // shards) * shards
    tokens = np.zeros((batch, width), np.int32)
    lengths = np.zeros(batch, np.int32)
    for row, tokens_of_row in enumerate(begun.rows):
        tokens[row, : len(tokens_of_row)] = tokens_of_row
        lengths[row] = len(tokens_of_row)
    prompt = {begun.name: tokens[:, :chunk]}
    for name, array in begun.beside.items():
        wide = rounded(array.shape[1], 16) - array.shape[1]
        # Rows that only fill the batch have something to read, so that no softmax is over nothing.
        prompt[name] = np.pad(array, ((0, batch - len(array)), (0, wide)), mode="constant")
        prompt[name][len(array) :] = prompt[name][0]
    if any(pictures):
        if not isinstance(model, Sees):
            raise InputError("the model does not see pictures; leave them out")
        fill = [()] * (batch - len(prompts))
        prompt |= model.seeing(tokens, [*pictures, *fill])
    parts = [(tokens[:, at : at + chunk], np.int32(at)) for at in range(chunk, width, chunk)]
    rows = tokens if config.no_repeat_ngram_size else tokens[:, :0]
    return LaidPrompts(prompt, parts, rows, lengths, slots)


def check_prompts(model: Generates, prompts: Sequence[Sequence[int]], config: SamplingConfig) -> Begun:
    """What the texts begin with.

    Raises:
        InputError: a prompt is empty, has an unknown id, or leaves no room for what is to follow; or a token
            that is to be forced is unknown.
    """
    vocab, positions = model.vocab_size, model.max_positions
    for row, prompt in enumerate(prompts):
        if not len(prompt):
            raise InputError(
                f"prompt {row} is empty; it needs at least one token, such as the begin-of-text one"
            )
        for token in prompt:
            if not 0 <= token < vocab:
                raise InputError(
                    f"prompt {row} has the token id {token}; the model's ids are 0 to {vocab - 1}"
                )
    for name in ("forced_bos_token", "forced_eos_token"):
        token = getattr(config, name)
        if token is not None and not 0 <= token < vocab:
            raise InputError(f"sampling.{name} = {token}: the model's token ids are 0 to {vocab - 1}")
    begun = model.begun(prompts, config.start_token)
    for row, (prompt, first) in enumerate(zip(prompts, begun.rows, strict=True)):
        total = len(first) + config.max_new_tokens
        if positions is None or max(total, len(prompt)) <= positions:
            continue
        only = f"the model has only {positions} learned positions"
        if not model.answers:
            raise InputError(
                f"prompt {row} has {len(prompt)} tokens, with sampling.max_new_tokens = "
                f"{config.max_new_tokens} that is {total}, but {only}; shorten it or lower "
                "sampling.max_new_tokens"
            )
        if len(prompt) > positions:
            raise InputError(f"prompt {row} has {len(prompt)} tokens, but {only}; shorten it")
        raise InputError(
            f"sampling.max_new_tokens = {config.max_new_tokens} and the start token are {total} tokens, but "
            f"{only}; lower sampling.max_new_tokens"
        )
    return begun
