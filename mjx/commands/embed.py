"""`mjx embed MODEL [FILES]`: embeddings of texts, by any encoder."""

import argparse
import contextlib
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mjx.data.documents import BadLines, read_documents, read_lines
from mjx.errors import InputError
from mjx.inference.embedding.embedder import Embedder
from mjx.inference.embedding.files import check_embedding_file, open_embedding_file
from mjx.inference.embedding.texts import TextEmbedder, blocks_of_texts
from mjx.launch.failure import end_together
from mjx.launch.runtime import start
from mjx.models.family import Embeds
from mjx.models.huggingface.sentence_modules import SentenceModules, read_sentence_modules
from mjx.run.opened import OpenedModel, open_model, read_inference_config

_STDIN = Path("/dev/stdin")


def embed(options: argparse.Namespace, files: Sequence[str], overrides: Sequence[str]) -> None:
    """Write, or print, an embedding of each text of the files, or of standard input."""
    with end_together():
        if options.output is not None:
            check_embedding_file(options.output)
        config = read_inference_config(options.path, overrides)
        processes = start(config.runtime)
        if not files and (sys.stdin is None or sys.stdin.isatty()):
            raise InputError("there are no texts: name files, or pipe lines in")
        if not files and processes.num_processes > 1:
            raise InputError("standard input is that of one process, and there are several: name files")
        dtype = "float32" if config.model.compute_dtype == "float32" else None
        opened = open_model(options.path, config, options.step, dtype)
        embedder = _embedder(opened, options)
        total, is_first = 0, processes.is_first
        with contextlib.ExitStack() as ending:
            shown = ending.enter_context(_progress(is_first))
            task = shown.add_task("embedding", total=None)
            file = None
            if is_first and options.output is not None:
                file = ending.enter_context(open_embedding_file(options.output, embedder.features))
            for block in blocks_of_texts(_texts(files, options.text_key)):
                found = embedder(block, lambda rows: shown.advance(task, rows))
                total += len(block)
                if file is not None:
                    file.write(block, found)
                elif is_first:
                    print("\n".join(json.dumps(row) for row in found.astype(float).round(7).tolist()))
            if not total:
                raise InputError(f"{', '.join(files) or 'standard input'}: there is no text")
    if embedder.cut and is_first:
        logging.getLogger("mjx").warning(
            "%d of %d texts have more than %d tokens, and were cut", embedder.cut, total, embedder.max_length
        )
    if is_first and options.output is not None:
        print(f"wrote {total:,} embeddings of {embedder.features} features to {options.output}")


def _embedder(opened: OpenedModel, options: argparse.Namespace) -> TextEmbedder:
    """As the folder says it, but for what the command line says."""
    model = opened.model
    if not isinstance(model, Embeds):
        raise InputError(
            f"{options.path} is a model without an encoder, which sees no text whole: it embeds none"
        )
    companions = opened.companions
    says = SentenceModules() if companions is None else read_sentence_modules(companions.path)
    prompt = says.prompt if options.prompt is None else options.prompt
    if prompt and not says.include_prompt:
        raise InputError(
            f"{options.path} leaves the prompt {prompt!r} out of what is pooled, which mjx does not compute"
        )
    for name in ("max_length", "batch_tokens"):
        given = getattr(options, name)
        if given is not None and given < 1:
            raise InputError(f"--{name.replace('_', '-')} = {given} must be positive")
    embedder = Embedder(
        model,
        opened.parameters,
        pooling=says.pooling if options.pooling is None else tuple(options.pooling.split("+")),
        dense=says.dense,
        normalize=says.normalize if options.normalize is None else options.normalize,
        mesh=opened.mesh,
        rules=opened.rules,
        batch_tokens=options.batch_tokens,
    )
    return TextEmbedder(
        embedder,
        opened.tokenizer(),
        max_length=says.max_length if options.max_length is None else options.max_length,
        prompt=prompt,
        lower_case=says.lower_case,
        data=opened.data(),
    )


def _texts(files: Sequence[str], key: str) -> Iterator[str]:
    if files:
        return read_documents(files, key=key, lines=True)
    return (line.rstrip("\r\n") for _, line in read_lines(_STDIN, BadLines()))


def _progress(is_first: bool) -> Progress:
    console = Console(stderr=True, highlight=False)
    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} texts"), TimeElapsedColumn())
    shown = is_first and console.is_terminal
    return Progress(*columns, console=console, transient=True, disable=not shown)
