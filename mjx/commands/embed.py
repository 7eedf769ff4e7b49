"""`mjx embed MODEL [FILES]`: embeddings of texts or pictures, by any encoder."""

import argparse
import contextlib
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mjx.commands.picture_files import are_pictures, read_pictures
from mjx.data.documents import BadLines, read_documents, read_lines
from mjx.errors import InputError
from mjx.inference.embedding.embedder import Embedder
from mjx.inference.embedding.files import check_embedding_file, open_embedding_file
from mjx.inference.embedding.pictures import PictureEmbedder
from mjx.inference.embedding.texts import TextEmbedder, blocks_of_texts
from mjx.launch.failure import end_together
from mjx.launch.runtime import start
from mjx.models.family import Embeds, EmbedsPictures
from mjx.models.huggingface.sentence_modules import SentenceModules, read_sentence_modules
from mjx.run.opened import OpenedModel, open_model, read_inference_config

_STDIN = Path("/dev/stdin")


class _Vectors(NamedTuple):
    """Some of what is embedded, and what it has become."""

    names: Sequence[str]
    """Texts, or files of pictures."""
    embeddings: Float[np.ndarray, "rows features"]


def embed(options: argparse.Namespace, files: Sequence[str], overrides: Sequence[str]) -> None:
    """Write, or print, an embedding of each text or picture of the files, or of standard input's texts."""
    with end_together():
        if options.output is not None:
            check_embedding_file(options.output)
        config = read_inference_config(options.path, overrides)
        processes = start(config.runtime)
        if not files and (sys.stdin is None or sys.stdin.isatty()):
            raise InputError("there is nothing to embed: name files of texts or pictures, or pipe lines in")
        if not files and processes.num_processes > 1:
            raise InputError("standard input is that of one process, and there are several: name files")
        pictures = are_pictures(files)
        dtype = "float32" if config.model.compute_dtype == "float32" else None
        opened = open_model(options.path, config, options.step, dtype)
        what, make = ("picture", _of_pictures) if pictures else ("text", _of_texts)
        total, features, is_first = 0, 0, processes.is_first
        with contextlib.ExitStack() as ending:
            shown = ending.enter_context(_progress(is_first, f"{what}s"))
            task, file = shown.add_task("embedding", total=None), None
            for some in make(opened, options, files, lambda rows: shown.advance(task, rows)):
                total, features = total + len(some.names), some.embeddings.shape[1]
                if file is None and is_first and options.output is not None:
                    column = "file" if pictures else "text"
                    file = ending.enter_context(open_embedding_file(options.output, features, column))
                if file is not None:
                    file.write(some.names, some.embeddings)
                elif is_first:
                    rows = some.embeddings.astype(float).round(7).tolist()
                    print("\n".join(json.dumps(row) for row in rows))
            if not total:
                raise InputError(f"{', '.join(files) or 'standard input'}: there is no {what}")
    if is_first and options.output is not None:
        print(f"wrote {total:,} embeddings of {features} features to {options.output}")


def _of_texts(
    opened: OpenedModel, options: argparse.Namespace, files: Sequence[str], on_rows: Callable[[int], None]
) -> Iterator[_Vectors]:
    embedder, total = _embedder(opened, options), 0
    for block in blocks_of_texts(_texts(files, options.text_key)):
        yield _Vectors(block, embedder(block, on_rows))
        total += len(block)
    if embedder.cut and jax.process_index() == 0:
        logging.getLogger("mjx").warning(
            "%d of %d texts have more than %d tokens, and were cut", embedder.cut, total, embedder.max_length
        )


def _of_pictures(
    opened: OpenedModel, options: argparse.Namespace, files: Sequence[str], on_rows: Callable[[int], None]
) -> Iterator[_Vectors]:
    if not isinstance(opened.model, EmbedsPictures):
        raise InputError(f"{options.path} is a model that reads no pictures, and {files[0]} is one")
    for name in ("pooling", "max_length", "prompt", "batch_tokens"):
        if getattr(options, name) is not None:
            raise InputError(f"--{name.replace('_', '-')} is of texts, and {files[0]} is a picture")
    embedder = PictureEmbedder(
        opened.model,
        opened.parameters,
        normalize=bool(options.normalize),
        mesh=opened.mesh,
        rules=opened.rules,
    )
    for paths, images in read_pictures(options.path, opened, files):
        yield _Vectors([str(path) for path in paths], embedder(images, on_rows))


def _embedder(opened: OpenedModel, options: argparse.Namespace) -> TextEmbedder:
    """As the folder says it, but for what the command line says."""
    model = opened.model
    if not isinstance(model, Embeds) and isinstance(model, EmbedsPictures):
        raise InputError(f"{options.path} is a model that reads no texts: name files of pictures")
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


def _progress(is_first: bool, what: str) -> Progress:
    console = Console(stderr=True, highlight=False)
    columns = (SpinnerColumn(), TextColumn(f"{{task.completed:,.0f}} {what}"), TimeElapsedColumn())
    shown = is_first and console.is_terminal
    return Progress(*columns, console=console, transient=True, disable=not shown)
