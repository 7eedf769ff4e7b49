"""What a sentence-transformers folder says beside its encoder: pooling, layers, lengths, prompts."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from mjx.errors import InputError
from mjx.models.huggingface.tensor_files import open_tensors
from mjx.models.huggingface.tensor_writer import WHOLE
from mjx.models.interop.stored_file import open_file, parse_object, read_object

MODULES = "modules.json"
SETTINGS = "sentence_*_config.json"
"""The star stands for the kind of model, mostly the first that there was."""
PROMPTS = "config_sentence_transformers.json"
TOKENIZER = "tokenizer_config.json"

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "Identity": lambda x: x,
    "Tanh": jax.numpy.tanh,
    "ReLU": jax.nn.relu,
    "GELU": lambda x: jax.nn.gelu(x, approximate=False),
    "SiLU": jax.nn.silu,
    "Sigmoid": jax.nn.sigmoid,
}
"""Classes of torch.nn → what they compute."""

_OLDER_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Keys of before version 6 → the modes, in the order in which they are joined."""
_MODES = tuple(_OLDER_MODES.values())
_NO_LENGTH = 10**9
"""What transformers writes where a tokenizer has no longest row is beyond it."""


@dataclasses.dataclass(frozen=True)
class Dense:
    """A layer on pooled states."""

    activation: str
    """In `ACTIVATIONS`."""
    weights: Mapping[str, Float[np.ndarray, "..."]]
    """`kernel` [inputs, outputs], and perhaps a `bias`."""


@dataclasses.dataclass(frozen=True)
class SentenceModules:
    """What is done with a text in front of the encoder, and with its states behind it."""

    pooling: tuple[str, ...] | None = None
    """Modes whose vectors are joined. None: nothing says it."""
    dense: tuple[Dense, ...] = ()
    normalize: bool = False
    max_length: int | None = None
    """Tokens of a text, special ones included; longer ones are cut. None: nothing says it."""
    lower_case: bool = False
    prompt: str = ""
    """What stands in front of every text."""
    include_prompt: bool = True
    """Whether its tokens are pooled."""


def read_sentence_modules(folder: Path) -> SentenceModules:
    """Of a folder that holds an encoder; of one of transformers alone: its tokenizer's length.

    Raises:
        InputError: a file is damaged, or says something that mjx does not compute.
    """
    length = _optional(folder / TOKENIZER).get("model_max_length")
    length = int(length) if isinstance(length, int | float) and 0 < length < _NO_LENGTH else None
    if not os.path.lexists(folder / MODULES):
        return SentenceModules(max_length=length)
    pooling: tuple[str, ...] | None = None
    dense: list[Dense] = []
    normalize, include_prompt = False, True
    for number, (kind, path) in enumerate(_modules(folder)):
        place = folder / path
        if normalize and kind not in ("Normalize", "Dropout"):
            raise InputError(f"{folder / MODULES}: a {kind} module behind Normalize is not carried")
        if number == 0 and kind == "Transformer":
            continue
        if kind == "Pooling" and pooling is None:
            pooling, include_prompt = _pooling(place / "config.json")
        elif kind == "Dense" and pooling is not None:
            dense.append(_dense(place))
        elif kind == "Normalize" and pooling is not None:
            normalize = True
        elif kind != "Dropout":
            raise InputError(
                f"{folder / MODULES}: a {kind} module as number {number} is not carried; mjx computes "
                "Transformer, then Pooling, then any of Dense, Dropout, and Normalize"
            )
    if pooling is None:
        raise InputError(f"{folder / MODULES} has no Pooling module, so that a text would have no embedding")
    path, settings = _settings(folder)
    longest = settings.get("max_seq_length")
    if longest is not None and (type(longest) is not int or longest < 1):
        raise InputError(f'{path} has "max_seq_length": {longest}, which should be a number from 1 on')
    return SentenceModules(
        pooling=pooling,
        dense=tuple(dense),
        normalize=normalize,
        max_length=length if longest is None else longest,
        lower_case=settings.get("do_lower_case") is True,
        prompt=_prompt(folder / PROMPTS),
        include_prompt=include_prompt,
    )


def sentence_files(folder: Path) -> list[str]:
    """The files by which a sentence-transformers folder differs from one of transformers, as paths in it.

    Raises:
        InputError: modules.json is damaged.
    """
    if not os.path.lexists(folder / MODULES):
        return []
    settings = [path.name for path in _settings_files(folder)]
    found = [name for name in (MODULES, *settings, PROMPTS) if os.path.lexists(folder / name)]
    parts = [(path, name) for _, path in _modules(folder) if path for name in ("config.json", WHOLE)]
    return found + [f"{path}/{name}" for path, name in parts if os.path.lexists(folder / path / name)]


def _optional(path: Path) -> dict[str, Any]:
    return read_object(path) if os.path.lexists(path) else {}


def _modules(folder: Path) -> list[tuple[str, str]]:
    """The class and the folder of each module, in their order."""
    path = folder / MODULES
    with open_file(path) as file:
        listed = parse_object(b'{"modules": ' + file.readall() + b"}", str(path))["modules"]
    if not isinstance(listed, list) or not all(
        isinstance(each, dict) and isinstance(each.get("type"), str) and isinstance(each.get("path"), str)
        for each in listed
    ):
        raise InputError(f"{path} is not a list of modules that have a type and a path")
    for each in listed:
        if os.path.isabs(each["path"]) or ".." in Path(each["path"]).parts:
            raise InputError(f"{path} names the module {each['path']}, which is not in the folder")
    return [(each["type"].rpartition(".")[2], each["path"]) for each in listed]


def _settings_files(folder: Path) -> list[Path]:
    return sorted(folder.glob(SETTINGS))[:1]


def _settings(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The file of the encoder's settings, and what is in it."""
    (path,) = _settings_files(folder) or (folder / SETTINGS,)
    settings = _optional(path)
    task = settings.get("transformer_task", "feature-extraction")
    if task != "feature-extraction":
        raise InputError(f'{path} has "transformer_task": {task}; mjx embeds feature-extraction')
    modality = settings.get("modality_config")
    of_text = modality.get("text", {}) if isinstance(modality, dict) else {}
    output = of_text.get("method_output_name", "last_hidden_state")
    if output != "last_hidden_state":
        raise InputError(f'{path} has "method_output_name": {output}; mjx pools last_hidden_state')
    return path, settings


def _pooling(path: Path) -> tuple[tuple[str, ...], bool]:
    config = read_object(path)
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _OLDER_MODES.items() if config.get(key) is True] or ["mean"]
    modes = tuple(modes) if isinstance(modes, list) else (modes,)
    for mode in modes:
        if mode not in _MODES:
            raise InputError(f'{path} has the pooling mode "{mode}"; mjx knows {", ".join(_MODES)}')
    return modes, config.get("include_prompt") is not False


def _dense(folder: Path) -> Dense:
    path = folder / "config.json"
    config = read_object(path)
    activation = str(config.get("activation_function", "nn.Tanh"))
    name = activation.rpartition(".")[2]
    if "nn" not in activation.split(".") or name not in ACTIVATIONS:
        raise InputError(
            f'{path} has "activation_function": {activation}; mjx knows {", ".join(ACTIVATIONS)} of nn'
        )
    reads = config.get("module_input_name", "sentence_embedding")
    writes = config.get("module_output_name") or reads
    if config.get("use_residual") or {reads, writes} != {"sentence_embedding"}:
        raise InputError(
            f"{path}: a Dense module is carried without use_residual, and of sentence_embedding to itself"
        )
    with open_tensors(folder) as tensors:
        unknown = sorted(set(tensors) - {"linear.weight", "linear.bias"})
        if unknown or "linear.weight" not in tensors:
            raise InputError(
                f"{folder} holds {', '.join(tensors)}; a Dense module has linear.weight and .bias"
            )
        weights = {"kernel": np.ascontiguousarray(tensors["linear.weight"].read().astype(np.float32).T)}
        if "linear.bias" in tensors:
            weights["bias"] = tensors["linear.bias"].read().astype(np.float32)
    return Dense(name, weights)


def _prompt(path: Path) -> str:
    config = _optional(path)
    name, prompts = config.get("default_prompt_name"), config.get("prompts")
    if name is None:
        return ""
    text = prompts.get(name) if isinstance(prompts, dict) else None
    if not isinstance(text, str):
        raise InputError(f'{path} has "default_prompt_name": {name}, and no such prompt')
    return text
