"""`mjx data build`: text files into `.bin/.idx`, Megatron's format."""

import argparse

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mjx.data.build import build_dataset
from mjx.data.documents import BadLines
from mjx.data.indexed import dataset_prefix
from mjx.data.sentences import LANGUAGE
from mjx.data.tokenizers import load_tokenizer
from mjx.errors import InputError


def data_build(options: argparse.Namespace) -> None:
    """Tokenize `options.inputs` into `options.output`."""
    if options.workers < 1:
        raise InputError(f"--workers = {options.workers} must be at least 1")
    sentences = (options.language or LANGUAGE) if options.split_sentences else None
    if options.language and sentences is None:
        raise InputError(f"--language = {options.language} is for --split-sentences")
    tokenizer = load_tokenizer(options.tokenizer)
    bad = BadLines(skip=options.skip_bad_lines)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading")

        def show(documents: int, tokens: int) -> None:
            progress.update(task, description=f"{documents:,} documents, {tokens:,} tokens")

        documents, tokens = build_dataset(
            options.inputs,
            options.output,
            tokenizer,
            key=options.key,
            blank_line_separated=options.split_blank_lines,
            append_eod=options.eod,
            sentences=sentences,
            workers=options.workers,
            progress=show,
            bad_lines=bad,
        )
    prefix = dataset_prefix(options.output)
    print(f"wrote {documents:,} documents, {tokens:,} tokens to {prefix}.bin and .idx")
    if bad.skip:
        print(f"left out {bad.count:,} bad lines" + (f"; the first: {bad.first}" if bad.count else ""))
