"""Cases of transformers: folders with config.json, model.safetensors, keys.txt, io.npz (`in/`, `out/`)."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mjx.errors import InputError
from mjx.models.huggingface import PretrainedModel, from_pretrained, read_config
from mjx.models.huggingface.folder import HuggingFaceFolder
from mjx.models.interop.architectures import find_architecture
from oracles.difference import EXACT, LIMITS, Difference, Limits, difference
from oracles.families import HUGGINGFACE, Family
from oracles.report import Compared, Report, report_of
from oracles.run import UnsupportedError, check_names
from oracles.run import compare as compare_numbers

Arrays = Mapping[str, np.ndarray]


def compare(path: Path, limits: Limits = LIMITS) -> Report:
    """Run a case and compare all that it holds.

    Nothing is raised: what cannot be read or run is the report's result.
    """
    name = Path(os.path.normpath(path)).name
    try:
        with np.load(path / "io.npz") as file:
            arrays = dict(file)
        inputs, outputs = (
            {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
            for prefix in ("in/", "out/")
        )
        compared = compare_folder(path, inputs, outputs, limits)
        keys = path / "keys.txt"
        if keys.exists():
            sentences = [*compared.sentences, *_check_keys(path, keys.read_text().split())]
            compared = dataclasses.replace(compared, sentences=sentences)
    except UnsupportedError as error:
        return Report(name, "not supported", reason=str(error))
    except Exception as error:
        return Report(name, "broke", reason=f"{type(error).__name__}: {error}")
    return report_of(name, compared)


def compare_folder(path: Path, inputs: Arrays, outputs: Arrays, limits: Limits = LIMITS) -> Compared:
    """A model's folder, and what transformers makes of `inputs`.

    Raises:
        UnsupportedError: mjx does not have such a model.
        InputError: the files are damaged, or do not fit one another.
    """
    family = family_of(path)
    check_names(family, inputs)
    model = from_pretrained(path, dtype="float32")
    notes = []
    if "loss" in outputs and _counts_padding(family.batch(family.prepared(model.config, inputs))):
        outputs = {name: array for name, array in outputs.items() if name != "loss"}
        notes.append("the loss is left out: it counts padding, whose logits mean nothing")
    compared = compare_numbers(family, model.config, model.parameters, inputs, outputs, limits)
    return dataclasses.replace(compared, weights=_weights(path, model)).with_notes(notes)


def family_of(path: Path) -> Family:
    """The row of a folder's model.

    Raises:
        UnsupportedError: mjx does not have such a model.
        InputError: there is no such folder, or its config.json is damaged.
    """
    folder = HuggingFaceFolder(path)
    try:
        family, _ = read_config(folder)
    except InputError as error:
        raise UnsupportedError(str(error)) from error
    if family not in HUGGINGFACE:
        raise UnsupportedError(f"the cases of the family {family} have no row")
    return HUGGINGFACE[family]


def _counts_padding(batch: dict[str, Any]) -> bool:
    return "segment_ids" in batch and bool((batch["loss_mask"] * (batch["segment_ids"] == 0)).any())


def _weights(path: Path, model: PretrainedModel) -> list[Difference]:
    """Every tensor of the file against what our parameters give back."""
    folder = HuggingFaceFolder(path)
    _, architecture = find_architecture(folder.config)
    back = architecture.name_map(model.config).to_theirs(model.parameters)
    with folder.tensors() as tensors:
        stored = {name: tensor.read() for name, tensor in tensors.items() if name in back}
    return [difference(f"weight {name}", back[name], array, EXACT) for name, array in stored.items()]


def _check_keys(path: Path, keys: list[str]) -> list[str]:
    """That the file holds what transformers listed."""
    with HuggingFaceFolder(path).tensors() as tensors:
        odd = sorted(set(tensors) ^ set(keys))
    return [f"keys.txt and the weights differ in {', '.join(odd[:5])}"] if odd else []
