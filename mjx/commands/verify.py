"""`mjx verify DIR`: a Hugging Face folder in mjx and in the installed transformers, side by side."""

import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int
from rich.console import Console
from rich.table import Table

from mjx.data.images.decode import pillow
from mjx.data.images.processor import read_processor
from mjx.data.tokenizers import load_tokenizer
from mjx.errors import InputError
from mjx.inference.generate import Generator
from mjx.inference.sampling import SamplingConfig
from mjx.models.common.parameter import bind
from mjx.models.common.pictures import Tiles, View, parts_of
from mjx.models.family import Sees, abstract_model
from mjx.models.huggingface import PretrainedModel, from_pretrained, read_config
from mjx.models.huggingface.folder import HuggingFaceFolder
from mjx.models.huggingface.generation import start_token_of
from mjx.training.optimizer import global_norm

RANGES = 16
"""Lines of the table of positions: of longer rows a line has several."""
CONTINUES_TEXT = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""How transformers' classes end whose head gives the next token."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """What is compared, and how closely."""

    texts: Sequence[str] = ()
    """Prompts; with those of the file, instead of random tokens."""
    prompt_file: str | None = None
    """A prompt a line; .json: a list of lists of token ids."""
    rows: int = 4
    length: int = 32
    """Random: of the longest row; the others are shorter, and padded."""
    seed: int = 0
    padding_side: str = "right"
    new_tokens: int = 16
    gradients: bool = True
    limit: float = 1e-4
    """Of logits to their spread (standard deviation), of loss and gradient norm to theirs."""

    def __post_init__(self):
        for name, least in (("rows", 1), ("length", 2), ("new_tokens", 0)):
            if getattr(self, name) < least:
                option = name.replace("_", "-")
                raise InputError(f"--{option} {getattr(self, name)} must be at least {least}")


@dataclasses.dataclass(frozen=True)
class _Rows:
    """What both read, padded, in transformers' order."""

    prompts: list[list[int]]
    tokens: Int[np.ndarray, "batch sequence"]
    """Behind which the logits stand: of an encoder-decoder the decoder's."""
    mask: Int[np.ndarray, "batch sequence"]
    labels: Int[np.ndarray, "batch sequence"]
    counted: Int[np.ndarray, "batch sequence"]
    """Where there is a label, 1."""
    encoder: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """`encoder_tokens` and `encoder_mask`, where an encoder reads the prompts."""
    start: int | None = None
    """The decoder's first token, then."""
    views: Sequence[Sequence[View]] = ()
    """The pictures of each row, of a model that sees."""


@dataclasses.dataclass(frozen=True)
class _Side:
    """What one of the two makes of the prompts."""

    logits: Float[np.ndarray, "batch sequence vocab"]
    loss: float
    gradient_norm: float | None
    continuation: Int[np.ndarray, "batch new"]


def verify(path: str, options: VerifyOptions) -> bool:
    """Print how far the two are apart; whether all of it is within the limit.

    Raises:
        InputError: mjx or transformers has no such model, it does not continue text, a prompt does not fit,
            or transformers is not installed.
    """
    folder = HuggingFaceFolder(path)
    check_head(folder)
    _, config = read_config(folder)
    if config.vocabulary is None:
        raise InputError(f"{folder.path} holds a model that takes no tokens, so that it continues no text")
    model = abstract_model(config)
    prompts = _prompts(folder, config.vocabulary, options)
    sight, views = _sight(model), []
    if sight is not None:
        views = _views(folder, len(prompts), options)
        prompts = [_seeing(sight, *row) for row in zip(prompts, views, strict=True)]
    answers = model.answers
    rows = dataclasses.replace((_pairs if answers else _texts)(folder, prompts, options), views=views)
    read = rows.tokens.shape[1]
    length = max(read, options.new_tokens + 1) if answers else read + options.new_tokens
    longest = model.max_positions
    if longest is not None and length > longest:
        raise InputError(
            f"rows of {read} tokens with {options.new_tokens} new ones do not fit the model, "
            f"which has {longest} positions"
        )

    result = _transformers(folder.path, rows, options)
    norm = float(result["gradient_norm"]) if options.gradients else None
    theirs = _Side(result["logits"], float(result["loss"]), norm, result["continuation"])
    with jax.default_matmul_precision("highest"):
        ours = _mjx(from_pretrained(path, dtype="float32"), rows, options)

    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    given = "given" if options.texts or options.prompt_file else f"random (seed {options.seed})"
    console.print(
        f"{folder.path}: {len(prompts)} {given} rows of up to {read} tokens, padded on the "
        f"{options.padding_side}; float32; {result['versions']}\n",
        soft_wrap=True,
    )
    real = rows.mask.astype(bool)
    console.print(_positions(ours, theirs, real))
    table, within = _summary(ours, theirs, real, result["continuation_logits"], options.limit)
    console.print()
    console.print(table)
    return within


def check_head(folder: HuggingFaceFolder) -> None:
    """Raise `InputError` if a model's head does not give the next token: nothing here would compare it."""
    classes = folder.config.get("architectures") or []
    other = [name for name in classes if not str(name).endswith(CONTINUES_TEXT)]
    if other:
        raise InputError(
            f"{folder.path} holds a {', '.join(other)}; mjx verify compares models that continue text "
            f"(classes that end in {' or '.join(CONTINUES_TEXT)})"
        )


def _prompts(folder: HuggingFaceFolder, vocab_size: int, options: VerifyOptions) -> list[list[int]]:
    texts, prompts = list(options.texts), []
    if options.prompt_file is not None:
        try:
            content = Path(options.prompt_file).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--prompt-file {options.prompt_file} cannot be read: {error}") from error
        if options.prompt_file.lower().endswith(".json"):
            prompts = _ids(options.prompt_file, content, vocab_size)
        else:
            texts += [line for line in content.splitlines() if line.strip()]
    if texts:
        tokenizer = load_tokenizer(folder.path)
        encoded = [tokenizer.encode_prompt(text) for text in texts]
        _check_ids("a text", encoded, vocab_size)
        prompts = encoded + prompts
    if options.texts or options.prompt_file is not None:
        if not prompts or any(len(prompt) < 2 for prompt in prompts):
            raise InputError("every prompt needs at least two tokens, and there has to be one")
        return prompts
    draw = np.random.default_rng(options.seed)
    lengths = [options.length, *draw.integers(2, options.length + 1, options.rows - 1)]
    return [draw.integers(0, vocab_size, length).tolist() for length in lengths]


def _sight(model: Any) -> Sees | None:
    return model if isinstance(model, Sees) else None


def _views(folder: HuggingFaceFolder, rows: int, options: VerifyOptions) -> list[list[View]]:
    """A random picture a row, as the folder's processor makes it ready."""
    processor, draw = read_processor(folder.path), np.random.default_rng(options.seed)
    views: list[list[View]] = []
    for _ in range(rows):
        height, width = draw.integers(64, 512, 2)
        pixels = draw.integers(0, 256, (height, width, 3), np.uint8)
        views.append([processor(pillow().fromarray(pixels))])
    if len({part.shape for row in views for view in row for part in parts_of(view)}) > 1:
        raise InputError(
            f"{folder.path} has a processor that gives pictures sizes of their own; mjx verify compares "
            "models that see pictures of one size"
        )
    return views


def _seeing(model: Sees, prompt: list[int], views: Sequence[View]) -> list[int]:
    """With the places of pictures behind the first token, and none elsewhere."""
    text = [(token or 1) - 1 if token == model.image_token else token for token in prompt]
    places = sum(sum(model.places(view)) for view in views)
    return [text[0], *[model.image_token] * places, *text[1:]]


def _ids(name: str, content: str, vocab_size: int) -> list[list[int]]:
    try:
        rows = json.loads(content)
        ids = [[int(token) for token in row] for row in rows]
    except (ValueError, TypeError) as error:
        raise InputError(f"--prompt-file {name} is no list of lists of token ids") from error
    _check_ids(f"--prompt-file {name}", ids, vocab_size)
    return ids


def _check_ids(where: str, ids: list[list[int]], vocab_size: int) -> None:
    wrong = [token for row in ids for token in row if not 0 <= token < vocab_size]
    if wrong:
        raise InputError(f"{where} has the token {wrong[0]}; the model's are 0 to {vocab_size - 1}")


def _pad(prompts: list[list[int]], side: str) -> tuple[np.ndarray, np.ndarray]:
    length = max(map(len, prompts))
    tokens, mask = np.zeros((2, len(prompts), length), np.int64)
    for row, prompt in enumerate(prompts):
        place = slice(0, len(prompt)) if side == "right" else slice(length - len(prompt), length)
        tokens[row, place], mask[row, place] = prompt, 1
    return tokens, mask


def _texts(folder: HuggingFaceFolder, prompts: list[list[int]], options: VerifyOptions) -> _Rows:
    """Prompts whose tokens are held against the next ones; those that stand behind padding are not."""
    tokens, mask = _pad(prompts, options.padding_side)
    counted = np.zeros_like(mask)
    counted[:, :-1] = mask[:, 1:] * mask[:, :-1]
    return _Rows(prompts, tokens, mask, np.roll(tokens, -1, axis=1), counted)


def _pairs(folder: HuggingFaceFolder, prompts: list[list[int]], options: VerifyOptions) -> _Rows:
    """Prompts for an encoder; what its decoder is held against is the prompt of the next row.

    Raises:
        InputError: nothing says what it begins with.
    """
    start = start_token_of(folder)
    if start is None:
        raise InputError(
            f"{folder.path}: neither generation_config.json nor config.json has decoder_start_token_id, so "
            "that it is not known what the decoder begins with"
        )
    tokens, mask = _pad(prompts, options.padding_side)
    written = [*prompts[1:], prompts[0]]
    labels, counted = _pad(written, options.padding_side)
    read, _ = _pad([[start, *row[:-1]] for row in written], options.padding_side)
    encoder = {"encoder_tokens": tokens, "encoder_mask": mask}
    return _Rows(prompts, read, counted, labels, counted, encoder, start)


def _transformers(path: Path, rows: _Rows, options: VerifyOptions) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory(prefix="mjx-verify-") as scratch:
        asked, answer = Path(scratch) / "request.npz", Path(scratch) / "result.npz"
        request: dict[str, Any] = {
            name: getattr(rows, name) for name in ("tokens", "mask", "labels", "counted")
        }
        request |= rows.encoder | ({} if rows.start is None else {"start": rows.start})
        if rows.views:
            parts = [[part for view in row for part in parts_of(view)] for row in rows.views]
            request["pixel_values"] = np.stack([part for row in parts for part in row])
            request["pictures"] = np.array([len(row) for row in parts])
            sizes = [view.size if isinstance(view, Tiles) else view.shape[1:] for [view] in rows.views]
            request["image_sizes"] = np.array(sizes)
        request |= {"new_tokens": options.new_tokens, "gradients": options.gradients}
        np.savez(asked, **request)
        child = subprocess.run(
            [sys.executable, "-m", "mjx.commands.transformers_child", path, asked, answer],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        if child.returncode != 0 or not answer.exists():
            words = [line for line in child.stdout.splitlines() if line.strip()][-1:]
            said = f": {words[0].strip()}" if words else ""
            raise InputError(f"transformers failed on {path} (status {child.returncode}){said}")
        with np.load(answer) as file:
            result = dict(file)
    if "error" in result:
        raise InputError(str(result["error"]))
    return result


def _mjx(model: PretrainedModel, rows: _Rows, options: VerifyOptions) -> _Side:
    side = "" if rows.start is None else "decoder_"
    arrays = {f"{side}tokens": rows.tokens, f"{side}segment_ids": rows.mask}
    if rows.encoder:
        arrays |= {"tokens": rows.encoder["encoder_tokens"], "segment_ids": rows.encoder["encoder_mask"]}
    read: dict[str, Any] = {name: array.astype(np.int32) for name, array in arrays.items()}
    sight, seen = _sight(model.definition), {}
    if sight is not None:
        seen = sight.seeing(rows.tokens, rows.views)
        read |= seen
    counted = rows.counted.astype(np.float32)
    batch = read | {"labels": rows.labels.astype(np.int32), "loss_mask": counted}

    def loss(parameters: Any):
        module = bind(model.definition, parameters)
        total, _ = module.loss(batch, module.counts(batch))
        return total

    norm = None
    if options.gradients:
        value, norm = jax.jit(lambda p: _value_and_norm(loss, p))(model.parameters)
    else:
        value = jax.jit(loss)(model.parameters)
    continuation = np.zeros((len(rows.prompts), 0), np.int64)
    if options.new_tokens:
        greedy = SamplingConfig(temperature=0.0, max_new_tokens=options.new_tokens, start_token=rows.start)
        generator = Generator(model.definition, model.parameters)
        continuation = np.array(generator(rows.prompts, greedy, pictures=rows.views))
    if seen:
        told = model.outputs(input_ids=rows.tokens, attention_mask=rows.mask, **seen)["logits"]
    else:
        told = model(**read)
    logits = np.asarray(told)
    return _Side(logits, float(value), None if norm is None else float(norm), continuation)


def _value_and_norm(loss, parameters):
    value, gradients = jax.value_and_grad(loss)(parameters)
    return value, global_norm(gradients)


def _positions(ours: _Side, theirs: _Side, real: Bool[np.ndarray, "batch sequence"]) -> Table:
    """Per position over the rows: padding has no logits that mean anything."""
    table = Table(show_edge=False)
    table.add_column("position")
    for heading in ("tokens", "largest |Δ| of logits", "same argmax"):
        table.add_column(heading, justify="right")
    apart = np.abs(ours.logits - theirs.logits).max(-1)
    same = ours.logits.argmax(-1) == theirs.logits.argmax(-1)
    length = real.shape[1]
    width = -(-length // RANGES)
    for first in range(0, length, width):
        place = slice(first, min(first + width, length))
        count = int(real[:, place].sum())
        last = place.stop - 1
        table.add_row(
            f"{first}" if last == first else f"{first}–{last}",
            f"{count}",
            f"{apart[:, place][real[:, place]].max(initial=0.0):.1e}",
            f"{int(same[:, place][real[:, place]].sum())}",
        )
    return table


def _summary(
    ours: _Side, theirs: _Side, real: Bool[np.ndarray, "batch sequence"], chosen_by: np.ndarray, limit: float
) -> tuple[Table, bool]:
    table = Table(show_edge=False)
    table.add_column("")
    for heading in ("mjx", "transformers", "apart", "limit"):
        table.add_column(heading, justify="right")
    table.add_column("")
    verdicts: list[bool] = []

    def add(what: str, mine: str, others: str, apart: str, allowed: str, *, within: bool) -> None:
        verdicts.append(bool(within))
        table.add_row(what, mine, others, apart, allowed, "[green]ok[/]" if within else "[red]differs[/]")

    a, b = ours.logits[real], theirs.logits[real]
    spread = float(b.std())
    largest = float(np.abs(a - b).max())
    relative = largest / spread if spread else largest
    spreads = f"{a.std():.4g}", f"{spread:.4g}"
    add("logits: their spread", *spreads, f"{relative:.1e} of it", f"{limit:.0e}", within=relative <= limit)
    agree, ties = _agreement(a, b, limit * spread)
    tied = f", {ties} ties" if ties else ""
    count = f"{agree} of {len(a)}{tied}"
    add("most likely token", "", "", count, "all", within=agree + ties == len(a))
    for name in ("loss", "gradient_norm"):
        mine, others = getattr(ours, name), getattr(theirs, name)
        if mine is not None and others is not None:
            relative = abs(mine - others) / abs(others) if others else abs(mine)
            shown = f"{mine:.6g}", f"{others:.6g}", f"{relative:.1e}"
            add(name.replace("_", " "), *shown, f"{limit:.0e}", within=relative <= limit)
    if theirs.continuation.size:
        rows, new = theirs.continuation.shape
        same = [_same_start(*row) for row in zip(ours.continuation, theirs.continuation, strict=True)]
        excused = sum(
            at < new and _is_tie(chosen_by[row, at], ours.continuation[row, at], limit * spread)
            for row, at in enumerate(same)
        )
        equal = sum(at == new for at in same)
        tied = f", {excused} part at a tie" if excused else ""
        what = f"{equal} of {rows} rows{tied}"
        add(f"greedy, {new} tokens", "", "", what, "all", within=equal + excused == rows)
        if equal + excused < rows:
            row = next(row for row, at in enumerate(same) if at < new)
            pair = ours.continuation[row, same[row]], theirs.continuation[row, same[row]]
            table.add_row(f"  row {row}, new token {same[row]}", f"{pair[0]}", f"{pair[1]}", "", "", "")
    return table, all(verdicts)


def _agreement(a: np.ndarray, b: np.ndarray, tie: float) -> tuple[int, int]:
    """Rows with one argmax, and those with two that are nearer to one another than `tie`."""
    mine, others = a.argmax(-1), b.argmax(-1)
    differ = np.flatnonzero(mine != others)
    return len(a) - len(differ), sum(_is_tie(b[row], mine[row], tie) for row in differ)


def _is_tie(logits: np.ndarray, token: int, tie: float) -> bool:
    return bool(logits.max() - logits[token] <= tie)


def _same_start(a: np.ndarray, b: np.ndarray) -> int:
    """How many of the first tokens are the same."""
    differ = np.flatnonzero(a != b)
    return int(differ[0]) if len(differ) else len(a)
