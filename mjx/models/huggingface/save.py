"""A model as a folder that transformers loads."""

import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import DTypeLike

from mjx.errors import InputError
from mjx.files import new_folder
from mjx.launch.primary import on_primary
from mjx.models.family import ModelConfig
from mjx.models.huggingface.folder import CONFIG, TOKENIZER_FILES, HuggingFaceFolder
from mjx.models.huggingface.pretrained import PretrainedModel
from mjx.models.huggingface.tensor_writer import TensorWriter
from mjx.models.interop.architecture import QUANTIZATION, WITHOUT_MEANING, Architecture
from mjx.models.interop.architectures import find_architecture, fitting_architecture
from mjx.models.interop.narrow import in_dtype, is_finite, warn_of_non_finite
from mjx.trees import flatten


def save_pretrained(
    model: PretrainedModel,
    path: str | os.PathLike,
    *,
    architecture: str | None = None,
    dtype: DTypeLike | None = None,
    clip: bool = False,
    max_shard_bytes: int = 5_000_000_000,
    max_positions: int | None = None,
    tokenizer: str | os.PathLike | None = None,
    token_ids: Mapping[str, int | None] | None = None,
) -> Architecture:
    """Write safetensors, config.json and what lay beside the source; returns what it was written as.

    Every process of a run calls this; process 0 writes. One tensor at a time is in its memory.

    Args:
        model: What to write.
        path: A new folder, which appears when it is complete.
        architecture: config.json's `model_type`; None: the source's, or the first that can hold the model.
        dtype: Of the tensors; None: the parameters' own.
        clip: Numbers beyond its range become its largest ones.
        max_shard_bytes: Of one safetensors file.
        max_positions: The longest row that the model is for, where no source's config.json says it.
        tokenizer: A folder whose tokenizer files are carried along where there is no source.
        token_ids: `eos_token_id` and the like, where no source's config.json says them.

    Raises:
        InputError: no architecture can hold the model, a number is beyond `dtype`, or the folder cannot be
            written.
    """
    if architecture is None and model.source is not None:
        architecture = model.source.config["model_type"]
    chosen = fitting_architecture(model.config, architecture)
    names = chosen.name_map(model.config)
    flat = flatten(model.parameters)

    def type_of(name: str) -> np.dtype:
        if dtype is not None:
            return np.dtype(dtype)
        stored = {np.dtype(flat[part].dtype) for part in names.parts(name)}
        return stored.pop() if len(stored) == 1 else np.dtype(np.float32)

    sizes = {name: (shape, type_of(name)) for name, shape in names.theirs.items()}
    config = _config_json(chosen, model.config, model.source, max_positions, token_ids or {})
    # transformers 5 says dtype, and reads the older word as well.
    config["dtype" if "dtype" in config else "torch_dtype"] = Counter(
        kind.name for _, kind in sizes.values()
    ).most_common(1)[0][0]

    files = contextlib.ExitStack()
    opened: list[Any] = []

    def begin() -> None:
        folder = files.enter_context(new_folder(path))
        if model.source is not None:
            model.source.copy_companions(folder)
        elif tokenizer is not None:
            _copy_tokenizer(Path(tokenizer), folder)
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        opened.append(files.enter_context(TensorWriter(folder, sizes, max_shard_bytes)))

    failure: Exception | None = None
    non_finite: list[str] = []
    with contextlib.ExitStack() as cleaning:
        cleaning.push(files)  # whatever fails, nothing half-written stays
        on_primary(begin)
        for name, (_, kind) in sizes.items():
            tensor = names.their_tensor(name, lambda path, index: _on_host(flat[path], index))
            if opened and failure is None:  # the other processes go on: all take part in every gather
                try:
                    array = in_dtype(np.asarray(tensor), kind, name, clip=clip)
                    opened[0].write(name, array)
                    if not is_finite(array):
                        non_finite.append(name)
                except Exception as error:
                    failure = error
        cleaning.pop_all()

    def end() -> None:
        with files:
            if failure is not None:
                raise failure

    on_primary(end)
    warn_of_non_finite("the written", non_finite)
    return chosen


def _on_host(leaf: jax.Array, index: tuple[int, ...]) -> np.ndarray:
    """A parameter, or what is at an index on its first axes, whole on every process."""
    if leaf.is_fully_addressable:
        if len(leaf.sharding.device_set) == 1 and next(iter(leaf.devices())).platform == "cpu":
            return np.asarray(leaf)[index]  # a view
        return np.asarray(leaf[index] if index else leaf)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(leaf[index] if index else leaf, tiled=True))


def _config_json(
    architecture: Architecture,
    config: ModelConfig,
    source: HuggingFaceFolder | None,
    max_positions: int | None,
    token_ids: Mapping[str, int | None],
) -> dict[str, Any]:
    """The source's own words where it describes this very model, else ours; tensors are written unpacked."""
    before = {} if source is None else source.config
    if before.get("model_type") == architecture.model_type:
        with contextlib.suppress(InputError):
            described = architecture.config.to_ours(before, "config.json")
            same = architecture.canonical(described) == architecture.canonical(config)
            if same and find_architecture(before)[1] is architecture:
                return {name: value for name, value in before.items() if name != QUANTIZATION}
    # Unsaid, they would be transformers' own for this model_type, perhaps beyond the vocabulary.
    unknown = {} if before else dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    written = {
        "architectures": [architecture.class_name],
        "model_type": architecture.model_type,
        **unknown,
        **{name: value for name, value in token_ids.items() if value is not None},
        **{name: value for name, value in before.items() if name in WITHOUT_MEANING},
        **architecture.config.to_theirs(config),
    }
    longest = before.get("max_position_embeddings", max_positions)
    if "max_position_embeddings" in architecture.config.known and longest is not None:
        written.setdefault("max_position_embeddings", longest)
    return {**written, "architectures": [architecture.class_name], "model_type": architecture.model_type}


def _copy_tokenizer(source: Path, target: Path) -> None:
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
