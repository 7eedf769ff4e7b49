"""`mjx generate MODEL --prompt TEXT`: continue text, or answer, with a trained model."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jax.sharding import Mesh

from mjx.config import InferenceConfig, RunConfig
from mjx.data.tokenizers import ChatTemplate, Tokenizer, decode_continuation
from mjx.inference.generate import Generator
from mjx.launch.failure import end_together
from mjx.launch.runtime import start
from mjx.run.opened import open_model, read_inference_config
from mjx.trees import Tree


def generate(
    path: str, prompts: list[str], overrides: list[str], step: int | None, *, chat: bool = True
) -> None:
    """Print each prompt with its continuation; of a model with a chat template, its answer to the prompt."""
    with end_together():
        config = read_inference_config(path, overrides)
        processes = start(config.runtime)
        # Converted once: as they are stored, every token would convert them again.
        dtype = "float32" if config.model.compute_dtype == "float32" else None
        opened = open_model(path, config, step, dtype)
        tokenizer = opened.tokenizer()
        template = ChatTemplate.from_folder(opened.tokenizer_folder) if chat else None
        texts = continue_texts(
            opened.model,
            opened.parameters,
            opened.mesh,
            config,
            tokenizer,
            prompts,
            stop_tokens=opened.stop_tokens(),
            template=template,
        )
        if processes.is_first:
            print("\n\n".join(texts))


def continue_texts(
    model: Any,
    parameters: Tree,
    mesh: Mesh,
    config: RunConfig | InferenceConfig,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    stop_tokens: Sequence[int] = (),
    template: ChatTemplate | None = None,
) -> list[str]:
    """Each prompt with what the model makes of it, or with a template the answers alone; every process of
    the run calls this."""
    stops = {*config.sampling.stop_tokens, *stop_tokens}
    if tokenizer.eod_id is not None:
        stops.add(tokenizer.eod_id)
    sampling = dataclasses.replace(config.sampling, stop_tokens=tuple(sorted(stops)))
    generator = Generator(model, parameters, mesh=mesh, rules=config.sharding.build(sequence_parallel=False))
    if template is None:
        ids = [tokenizer.encode_prompt(prompt) for prompt in prompts]
        return [
            prompt + decode_continuation(tokenizer, before, tokens)
            for prompt, before, tokens in zip(prompts, ids, generator(ids, sampling), strict=True)
        ]
    chats = [template.render([{"role": "user", "content": prompt}]) for prompt in prompts]
    continued = generator([tokenizer.encode_chat(chat) for chat in chats], sampling)
    return [tokenizer.decode(tokens) for tokens in continued]
