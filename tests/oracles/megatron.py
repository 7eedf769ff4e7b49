"""Cases of Megatron-Core: an .npz with weights `w/`, gradients `g/`, inputs `in/`, outputs `out/`, `config`.

`config` is JSON: the fields of its TransformerConfig and, under `model`, the arguments of its model class.
Sizes that neither says (the vocabulary, learned positions) are those of the tensors.
"""

import dataclasses
import functools
import json
import math
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from mjx.errors import InputError
from mjx.models import FAMILIES
from mjx.models.family import load_family
from mjx.models.interop.megatron.keys import any_mlp
from mjx.models.interop.megatron.spelling import spelled
from mjx.models.interop.name_map import NameMap
from mjx.models.megatron import read_settings
from mjx.models.megatron.names import with_own_norms
from oracles.difference import EXACT, LIMITS, Limits, difference
from oracles.families import MEGATRON, SCRIPT_NAMES, WITHOUT_MEANING, Family
from oracles.report import Compared, Report, report_of, worst
from oracles.run import UnsupportedError, check_names
from oracles.run import compare as compare_numbers

_BUFFER = "buffer:"
_DISTANCE = "relative_attention_max_distance"
UNNAMED = ("squared_relu", "fast_gelu")
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
        return {
            with_own_norms(key[len(prefix) :]): array
            for key, array in arrays.items()
            if key.startswith(prefix)
        }

    if "config" not in arrays:
        raise ValueError(f"{path} has no config: it is no case of Megatron-Core")
    given = json.loads(str(arrays["config"]))
    inner = given.pop("model", {})
    settings = {SCRIPT_NAMES.get(key, key): value for key, value in {**given, **inner}.items()}
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
        return Report(name, "not supported", reason=str(error))
    except Exception as error:
        return Report(name, "broke", reason=f"{type(error).__name__}: {error}")
    return report_of(name, min(candidates, key=_distance))


def configs(case: MegatronCase, **changes: Any) -> list[tuple[Family, Any]]:
    """The row and the config of a case; several where an unnamed activation leaves it open.

    Raises:
        UnsupportedError: mjx does not have such a model, or an option of it is not known.
    """
    where = f"the config of {case.name}"
    found = []
    for settings in _named(_with_sizes(case)):
        try:
            name, config = read_settings(settings, where)
        except InputError as error:
            raise UnsupportedError(str(error)) from error
        if name not in MEGATRON:
            raise UnsupportedError(f"{where} is of the family {name}, which has no row")
        family = MEGATRON[name]
        check_names(family, case.inputs)
        _check_known(case.settings, where)
        for reason, holds in family.unsupported(config).items():
            if holds:
                raise UnsupportedError(f"{where} has {reason}")
        found.append((family, dataclasses.replace(config, **changes)))
    return found


def _check_known(settings: dict[str, Any], where: str) -> None:
    """What a run's arguments may hold besides is passed over; a case holds what its model was built with."""
    models = [load_family(family).megatron for family in FAMILIES]
    known = {name for model in models if model is not None for name in model.settings.known}
    unknown = [
        key
        for key, value in settings.items()
        if value not in (None, False, 0, "", [], {})
        and key not in WITHOUT_MEANING
        and not known & spelled({key: value}, where).keys()
    ]
    if unknown:
        said = ", ".join(f"{key} = {settings[key]}" for key in unknown[:4])
        said += f" and {len(unknown) - 4} more" if len(unknown) > 4 else ""
        raise UnsupportedError(f"{where} has {said}; no family of mjx knows that")


def _with_sizes(case: MegatronCase) -> dict[str, Any]:
    settings = dict(case.settings)
    for setting, tensor in (
        ("vocab_size", "embedding.word_embeddings.weight"),
        ("max_sequence_length", "embedding.position_embeddings.weight"),
        ("relative_attention_num_buckets", "encoder_relative_pos_emb.relative_attention_bias.weight"),
    ):
        if setting not in settings and tensor in case.weights:
            settings[setting] = len(case.weights[tensor])
    if "language_model.embedding.word_embeddings.weight" in case.weights:
        settings |= _sizes_of_what_sees(case)
    if "embedder.weight" in case.weights:  # an encoder of pictures whose sizes only its tensors say
        side = math.isqrt(case.weights["position_embeddings"].shape[1])
        patch = math.isqrt(case.weights["embedder.weight"].shape[1] // 3)
        height, width = case.inputs["images"].shape[2:]
        settings |= {"vision_model_type": "radio", "patch_dim": patch, "img_h": height, "img_w": width}
        settings |= {"max_img_h": side * patch, "max_img_w": side * patch}
        settings["class_token_len"] = len(case.weights["class_token"])
    if "context_tokens" in case.inputs:
        settings.setdefault("share_embeddings_and_output_weights", "output_layer.weight" not in case.weights)
    if "decoder_tokens" in case.inputs:  # which only the program that calls the model would say
        settings["decoder_seq_length"] = case.inputs["decoder_tokens"].shape[1]
    return settings


def _sizes_of_what_sees(case: MegatronCase) -> dict[str, Any]:
    """What the script that builds the model says to it, beside the configs of its parts."""
    height, width = case.inputs["images"].shape[2:]
    patch = case.weights["vision_model.conv1.weight"].shape[-1]
    rows = len(case.weights["language_model.embedding.word_embeddings.weight"])
    return {
        "language_vocab_size": rows,
        "language_position_embedding_type": "rope",
        "share_embeddings_and_output_weights": "language_model.output_layer.weight" not in case.weights,
        **{"img_h": height, "img_w": width, "patch_dim": patch},
    }


def _named(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """With every name that a function without one may have, and every distance that is not said."""
    found = [settings]
    if _unnamed(settings):
        found = [{**settings, "activation_func": name} for name in UNNAMED]
    if _unsaid_distance(settings):
        distances = (128, 2 * settings["relative_attention_num_buckets"])
        found = [{**each, _DISTANCE: distance} for each in found for distance in distances]
    return found


def _unsaid_distance(settings: dict[str, Any]) -> bool:
    return settings.get("position_embedding_type") == "relative" and _DISTANCE not in settings


def _unnamed(settings: dict[str, Any]) -> bool:
    return re.fullmatch(r"<function \S*<lambda>.*", str(settings.get("activation_func"))) is not None


def _distance(compared: Compared) -> float:
    furthest = worst(compared.outputs)
    return 0.0 if furthest is None else furthest.of_limit


def _compare(case: MegatronCase, family: Family, config: Any, limits: Limits) -> Compared:
    names = name_map(config)
    weights = _tensors(case, names.theirs)
    parameters = names.to_ours(weights)
    compared = compare_numbers(
        family,
        config,
        parameters,
        case.inputs,
        case.outputs,
        limits,
        gradients=case.gradients or None,
        their_names=names.to_theirs,
    )
    back = names.to_theirs(parameters)
    mlp = any_mlp(config) if hasattr(config, "mlp") else None
    notes = []
    if mlp is not None and _unnamed(case.settings):
        notes.append(f"activation_func has no name; the nearest is {mlp.activation}")
    if _unsaid_distance(case.settings):
        distance = config.attention.relative_bias.max_distance
        notes.append(f"{_DISTANCE} is not said; the nearest is {distance}")
    return dataclasses.replace(
        compared,
        weights=[difference(f"weight {name}", back[name], weights[name], EXACT) for name in weights],
        notes=[*notes, *compared.notes],
    )


def name_map(config: Any) -> NameMap:
    """Megatron's tensors of a model.

    Raises:
        UnsupportedError: it has no such model.
    """
    theirs = load_family(config.family).megatron
    assert theirs is not None  # its settings were read
    try:
        return theirs.name_map(config)
    except InputError as error:
        raise UnsupportedError(str(error)) from error


def _tensors(case: MegatronCase, known: Collection[str]) -> dict[str, np.ndarray]:
    """Without the buffers that are no tensors of the model (masks, tables of rotations)."""
    found = {}
    for written, array in case.weights.items():
        name = written.removeprefix(_BUFFER)
        if name == written or name in known:
            found[name] = array
    return found
