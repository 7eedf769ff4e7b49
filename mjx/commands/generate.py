"""`mjx generate RUN --prompt TEXT`: continue text with a trained model."""

import dataclasses
from typing import Any

from jax.sharding import Mesh

from mjx.config import RunConfig
from mjx.data.tokenizers import Tokenizer, load_tokenizer
from mjx.errors import InputError
from mjx.inference.generate import Generator
from mjx.launch.failure import end_together
from mjx.launch.runtime import start
from mjx.models.common.parameter import Tree
from mjx.training.saved_run import load_run, read_run_config


def generate(run_dir: str, prompts: list[str], overrides: list[str], step: int | None) -> None:
    """Print each prompt with its continuation."""
    with end_together():
        config = read_run_config(run_dir, overrides)
        processes = start(config.runtime)
        run = load_run(run_dir, config, step)
        if not run.folder.tokenizer.exists():
            raise InputError(f"{run.folder.path} has no tokenizer: it was trained on token ids alone")
        tokenizer = load_tokenizer(run.folder.tokenizer)
        texts = continue_texts(run.model, run.parameters, run.mesh, config, tokenizer, prompts)
        if processes.is_first:
            print("\n\n".join(texts))


def continue_texts(
    model: Any, parameters: Tree, mesh: Mesh, config: RunConfig, tokenizer: Tokenizer, prompts: list[str]
) -> list[str]:
    """Each prompt with what the model makes of it; every process of the run calls this."""
    sampling = config.sampling
    if tokenizer.eod_id is not None:
        sampling = dataclasses.replace(sampling, stop_tokens=(*sampling.stop_tokens, tokenizer.eod_id))
    rules = config.sharding.build(sequence_parallel=False)
    generator = Generator(model, parameters, mesh=mesh, rules=rules)
    continued = generator([tokenizer.encode(prompt) for prompt in prompts], sampling)
    return [prompt + tokenizer.decode(tokens) for prompt, tokens in zip(prompts, continued, strict=True)]
