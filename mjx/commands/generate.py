"""`mjx generate RUN --prompt TEXT`: continue text with a trained model."""

from typing import Any

import jax
from jax.sharding import Mesh

from mjx.config import RunConfig
from mjx.data.tokenizers import Tokenizer, load_tokenizer
from mjx.errors import InputError
from mjx.inference.generate import generate as generate_tokens
from mjx.launch.failure import end_together
from mjx.launch.runtime import start
from mjx.models.common.parameter import Tree
from mjx.sharding import use_mesh
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
    ids = [tokenizer.encode(prompt) for prompt in prompts]
    with use_mesh(mesh, config.sharding.build(sequence_parallel=False)), jax.transfer_guard("allow"):
        continued = generate_tokens(
            model, parameters, ids, config.sampling, end_of_document=tokenizer.eod_id
        )
    return [
        prompt + tokenizer.decode(tokens) for prompt, tokens in zip(prompts, continued, strict=True)
    ]
