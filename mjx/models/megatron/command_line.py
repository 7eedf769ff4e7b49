"""Megatron-LM's arguments as the command lines of shell scripts have them."""

import re
from collections.abc import Iterable
from typing import Any

from mjx.errors import InputError
from mjx.models.megatron.shell import commands, is_open

_MEANS_FALSE = {
    "disable_bias_linear": "add_bias_linear",
    "no_position_embedding": "add_position_embedding",
    "no_bias_gelu_fusion": "bias_gelu_fusion",
    "no_yarn_correction_range_round_to_int": "yarn_correction_range_round_to_int",
    "no_async_tensor_model_parallel_allreduce": "async_tensor_model_parallel_allreduce",
    "no_decoupled_weight_decay": "decoupled_weight_decay",
}
"""Flags that set another argument to false."""

_LAUNCHER = re.compile(r"--(nnodes|nproc[-_]per[-_]node)(?:=|$)")

_MORE = re.compile(r"\$@|\$\*|\$\{[\w@*]+(\[[@*]\])?(:\d+)?\}(?<=[@*\]\d]\})")
"""A word that stands for any number of arguments: `$@`, `${@:2}` or an array."""


def read_script(script: str, where: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The arguments of the command that a script runs, or that a file of nothing but arguments lists: with
    values, and those whose values the script leaves to the shell that runs it, as it writes them.

    With them the name of the `program`, and `world_size`, where torchrun is told the number of processes.

    Raises:
        InputError: there is no such command.
    """
    launched: list[tuple[int, list[str]]] = []
    for words in commands(script):
        programs = [index for index, word in enumerate(words) if word.endswith(".py")]
        start = programs[0] + 1 if programs else 0
        if any(word.startswith("--") for word in words[start:]):
            launched.append((start, words))
    if not launched:
        raise InputError(f"{where} has no command with arguments such as --num-layers 24")
    # A file of arguments alone may have one on each line.
    if not any(start for start, _ in launched):
        launched = [(0, [word for _, words in launched for word in words])]
    start, words = max(launched, key=lambda each: (each[0] > 0, len(each[1])))
    settings, left_open = _parse(words[start:])
    if start:
        settings["program"] = words[start - 1].rpartition("/")[2]
    if processes := _processes(words[:start]):
        settings["world_size"] = processes
    return settings, left_open


def _parse(words: Iterable[str]) -> tuple[dict[str, Any], dict[str, str]]:
    given: dict[str, list[str]] = {}
    left_open: dict[str, str] = {}
    name = None
    for word in words:
        if _MORE.fullmatch(word):
            left_open[word] = word
        elif word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            name = name.replace("-", "_")
            given[name] = [value] if equals else []
        elif name is not None:
            given[name].append(word)
    settings: dict[str, Any] = {}
    for name, values in given.items():
        if any(map(is_open, values)):
            left_open[name] = " ".join(values)
        elif name in _MEANS_FALSE and not values:
            settings[_MEANS_FALSE[name]] = False
        else:
            settings[name] = _value(values)
    return settings, left_open


def _value(values: list[str]) -> Any:
    if not values:
        return True
    parsed = [scalar(value) for value in values]
    return parsed[0] if len(parsed) == 1 else parsed


def scalar(text: str) -> Any:
    """As argparse would read it: a number, or text; `007` is the name of something."""
    for kind in (int, float):
        if re.fullmatch(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?", text):
            try:
                return kind(text)
            except ValueError:
                continue
    return text


def _processes(words: list[str]) -> int | None:
    """How many torchrun starts."""
    found: dict[str, int] = {}
    for index, word in enumerate(words):
        if match := _LAUNCHER.match(word):
            value = word.partition("=")[2] or words[index + 1]
            if not value.isdecimal():
                return None
            found[match[1].replace("-", "_")] = int(value)
    return found.get("nnodes", 1) * found["nproc_per_node"] if "nproc_per_node" in found else None
