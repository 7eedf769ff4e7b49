"""`mjx generate MODEL --prompt TEXT`: continue text, or answer, with a trained model."""

import dataclasses
import os
from collections.abc import Sequence

from mjx.commands.pictures import seen_pictures
from mjx.data.tokenizers import ChatTemplate
from mjx.errors import InputError
from mjx.inference.generate import Generator
from mjx.inference.text import continue_texts
from mjx.launch.failure import end_together
from mjx.launch.runtime import start
from mjx.models.family import Generates
from mjx.run.opened import open_model, read_inference_config


def generate(
    path: str,
    prompts: list[str],
    overrides: list[str],
    step: int | None,
    *,
    images: Sequence[str] = (),
    chat: bool = True,
) -> None:
    """Print each prompt with its continuation; of a model with a chat template, its answer to the prompt.
    `images` are files of pictures, which stand in the prompts."""
    with end_together():
        prompts = [_text_of(prompt) for prompt in prompts]
        config = read_inference_config(path, overrides)
        processes = start(config.runtime)
        # Converted once: as they are stored, every token would convert them again.
        dtype = "float32" if config.model.compute_dtype == "float32" else None
        opened = open_model(path, config, step, dtype)
        tokenizer = opened.tokenizer()
        template = ChatTemplate.from_folder(opened.tokenizer_folder) if chat else None
        if not isinstance(opened.model, Generates):
            raise InputError(f"{path} is a model that does not continue text")
        pictures = seen_pictures(path, opened, tokenizer, prompts, images)
        generator = Generator(opened.model, opened.parameters, mesh=opened.mesh, rules=opened.rules)
        stops = tuple({*config.sampling.stop_tokens, *opened.stop_tokens()})
        sampling = dataclasses.replace(config.sampling, stop_tokens=stops)
        data = opened.data() if opened.model.answers else None
        if data is None and sampling.start_token is None:
            sampling = dataclasses.replace(sampling, start_token=opened.start_token())
        texts = continue_texts(
            *(generator, tokenizer, prompts, sampling), template=template, data=data, pictures=pictures
        )
        if processes.is_first:
            print("\n\n".join(texts))


def _text_of(argument: str) -> str:
    """An argument in UTF-8, also where the locale knows only ASCII."""
    if not any("\udc80" <= sign <= "\udcff" for sign in argument):
        return argument
    try:
        return os.fsencode(argument).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"--prompt {argument!r} is not text: its bytes are not UTF-8") from error
