"""`mjx data build`: text files into `.bin/.idx`, Megatron's format."""

import argparse

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mjx.data.build import build_dataset
from mjx.data.tokenizers import load_tokenizer
from mjx.errors import InputError


def data_build(options: argparse.Namespace) -> None:
    """Tokenize `options.inputs` into `options.output`."""
    if options.workers < 1:
        raise InputError(f"--workers = {options.workers} must be at least 1")
    tokenizer = load_tokenizer(options.tokenizer)
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
            append_eod=not options.no_eod,
            workers=options.workers,
            progress=show,
        )
    print(f"wrote {documents:,} documents, {tokens:,} tokens to {options.output}.bin and .idx")
