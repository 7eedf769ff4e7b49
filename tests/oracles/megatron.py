"""Cases of Megatron-Core: an .npz with weights `w/`, gradients `g/`, inputs `in/`, outputs `out/`, `config`.

`config` is JSON: the fields of its TransformerConfig and, under `model`, the arguments of its model class.
Sizes that neither says (the vocabulary, learned positions) are those of the tensors.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mjx.errors import InputError
from mjx.models.interop.name_map import NameMap
from oracles.difference import LIMITS, Limits, exact_difference, gradient_difference
from oracles.families import MEGATRON, Family
from oracles.megatron_settings import read_settings
from oracles.report import Report, make_report, worst
from oracles.run import UnsupportedError, check_names, compare_outputs, run

_BUFFER = "buffer:"
UNNAMED = ("squared_relu", "gelu_tanh")
"""What an `activation_func` without a name (a lambda) may be: those that Megatron's scripts write as one."""


@dataclasses.dataclass(frozen=True)
class MegatronCase:
    """What the file holds, by name."""

    name: str
    settings: dict[str, Any]
    weights: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


@functools.cache
def read(path: Path) -> MegatronCase:
    """A case.

    Raises:
        ValueError, OSError: the file is none.
    """
    with np.load(path) as file:
        arrays = dict(file)

    def under(prefix: str) -> dict[str, np.ndarray]:
        return {key[len(prefix) :]: array for key, array in arrays.items() if key.startswith(prefix)}

    if "config" not in arrays:
        raise ValueError(f"{path} has no config: it is no case of Megatron-Core")
    given = json.loads(str(arrays["config"]))
    settings = {**given, **given.pop("model", {})}
    return MegatronCase(path.stem, settings, under("w/"), under("g/"), under("in/"), under("out/"))


def compare(path: Path, limits: Limits = LIMITS, **changes: Any) -> Report:
    """Run a case and compare all that it holds; `changes` are fields of our config that change no number.

    Nothing is raised: what cannot be read or run is the report's result.
    """
    name = path.stem
    try:
        case = read(path)
        candidates = [_compare(case, family, config, limits) for family, config in configs(case, **changes)]
    except UnsupportedError as error:
        return Report(name, "not supported", sentences=[str(error)])
    except Exception as error:
        return Report(name, "broke", sentences=[f"{type(error).__name__}: {error}"])
    return min(candidates, key=_distance)


def configs(case: MegatronCase, **changes: Any) -> list[tuple[Family, Any]]:
    """The row and the config of a case; several where an unnamed activation leaves it open.

    Raises:
        UnsupportedError: mjx does not have such a model.
    """
    found = []
    for settings in _named(_sizes(case)):
        try:
            family, config = read_settings(settings, "the case's config")
        except InputError as error:
            raise UnsupportedError(str(error)) from error
        if family not in MEGATRON:
            raise UnsupportedError(f"the cases of the family {family} have no row")
        check_names(MEGATRON[family], case.inputs)
        found.append((MEGATRON[family], dataclasses.replace(config, dtype="float32", **changes)))
    return found


def _sizes(case: MegatronCase) -> dict[str, Any]:
    """The settings, with the sizes that only tensors show."""
    settings = dict(case.settings)
    for setting, tensor in (
        ("vocab_size", "embedding.word_embeddings.weight"),
        ("max_sequence_length", "embedding.position_embeddings.weight"),
    ):
        if setting not in settings and tensor in case.weights:
            settings[setting] = len(case.weights[tensor])
    return settings


def _named(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """JSON has a function as Python shows it, `<function silu at 0x7f>`: its name instead."""
    shown = settings.get("activation_func")
    match = re.fullmatch(r"<(?:built-in )?function (\S+?)(?: at 0x\w+)?>", str(shown))
    if match is None:
        return [settings]
    names = UNNAMED if match[1].endswith("<lambda>") else (match[1],)
    return [{**settings, "activation_func": name} for name in names]


def _distance(report: Report) -> float:
    furthest = worst(report.outputs)
    return 0.0 if furthest is None else furthest.of_limit


def _compare(case: MegatronCase, family: Family, config: Any, limits: Limits) -> Report:
    names = name_map(family, config)
    weights = _tensors(case, names.theirs)
    parameters = names.to_ours(weights)
    batch = family.batch(case.inputs)
    computed, tree = run(family, config, parameters, batch, gradients=bool(case.gradients))
    outputs, losses = compare_outputs(family, case.inputs, case.outputs, computed, limits)

    sentences, gradients = [], []
    if tree is not None:
        ours = names.to_theirs(tree)
        # What the loss of theirs does not reach has no gradient in the file.
        expected = {name: np.zeros_like(gradient) for name, gradient in ours.items()} | case.gradients
        sentences = [f"mjx has no gradient of {name}" for name in expected if name not in ours]
        gradients = [
            gradient_difference(f"gradient of {name}", ours[name], expected[name], limits) for name in ours
        ]
    back = names.to_theirs(parameters)
    weights = [exact_difference(f"weight {name}", back[name], tensor) for name, tensor in weights.items()]
    return make_report(case.name, outputs, losses, gradients, weights, sentences, _notes(case, config))


def name_map(family: Family, config: Any) -> NameMap:
    """Megatron's tensors of this model.

    Raises:
        UnsupportedError: it has no such model.
    """
    if family.names is None:
        raise UnsupportedError("the family's row says no names of Megatron's tensors")
    try:
        return family.names(config)
    except InputError as error:
        raise UnsupportedError(str(error)) from error


def _tensors(case: MegatronCase, known: Sequence[str]) -> dict[str, np.ndarray]:
    """Without the buffers that are no tensors of the model (masks, tables of rotations)."""
    plain = {name.removeprefix(_BUFFER): array for name, array in case.weights.items()}
    return {
        name: array for name, array in plain.items() if name in known or _BUFFER + name not in case.weights
    }


def _notes(case: MegatronCase, config: Any) -> list[str]:
    if len(_named(case.settings)) == 1:
        return []
    return [f"activation_func is a function without a name; the nearest is {config.mlp.activation}"]
