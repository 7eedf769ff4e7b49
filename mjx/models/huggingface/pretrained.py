"""A Hugging Face checkpoint as a model on any mesh."""

import dataclasses
import math
import os
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding
from jaxtyping import Array, DTypeLike, Float, Int

from mjx.errors import InputError
from mjx.models.common.parameter import abstract_parameters, bind, parameters_of, precise_parameters
from mjx.models.family import ModelConfig, abstract_model, load_family
from mjx.models.huggingface.architectures import find_architecture
from mjx.models.huggingface.folder import HuggingFaceFolder
from mjx.models.huggingface.table_names import as_in_table
from mjx.models.interop.load import load_parameters
from mjx.sharding import Rules, default_rules, use_mesh
from mjx.trees import Tree


class PretrainedModel:
    """A model with its weights where they live.

    `model.definition` has shapes in place of arrays: `bind(model.definition, model.parameters)` is the
    module, for use in jitted functions, and `Generator(model.definition, model.parameters, …)` continues
    text.
    """

    def __init__(
        self,
        config: ModelConfig,
        parameters: Tree,
        *,
        mesh: Mesh | None = None,
        rules: Rules | None = None,
        source: HuggingFaceFolder | None = None,
    ):
        """`source`: where the weights came from, whose config.json and tokenizer `save_pretrained` keeps."""
        self.config, self.parameters, self.source = config, parameters, source
        self.mesh, self.rules = mesh, rules or default_rules()
        self.definition = abstract_model(config)
        self._forward = jax.jit(lambda parameters, arrays: bind(self.definition, parameters)(**arrays))
        self._interface = interface = load_family(config.family).interface
        if interface is not None:
            self._outputs = jax.jit(
                lambda parameters, arrays: interface.outputs(bind(self.definition, parameters), arrays)
            )

    def __call__(
        self,
        tokens: Int[Array, "batch sequence"],
        *,
        attention_mask: Int[Array, "batch sequence"] | None = None,
        positions: Int[Array, "batch sequence"] | None = None,
        segment_ids: Int[Array, "batch sequence"] | None = None,
    ) -> Float[Array, "batch sequence vocab"]:
        """Logits of the next token, in float32; compiled once per shape.

        Args:
            tokens: Ids.
            attention_mask: As transformers takes it: 1 for tokens, 0 for padding, whose logits mean nothing.
            positions: Of the tokens; None: counted from the row's start, padding included.
            segment_ids: Documents of packed rows, from 1, which do not see each other; 0 is padding. It
                says all that attention_mask says.

        Raises:
            InputError: both masks are given.
        """
        if attention_mask is not None and segment_ids is not None:
            raise InputError("attention_mask and segment_ids are both given; segment_ids = 0 is padding too")
        segments: Any = attention_mask if segment_ids is None else segment_ids
        given = {"tokens": tokens, "positions": positions, "segment_ids": segments}
        arrays = {name: np.asarray(array) for name, array in given.items() if array is not None}
        return self._computed(self._forward, arrays)

    def outputs(self, **inputs: Any) -> dict[str, Array]:
        """What transformers' model of this kind returns, by its names, of inputs by its names.

        Args:
            inputs: `input_ids` and, as the model takes them, `attention_mask`, `position_ids`,
                `token_type_ids`, and `labels` (-100: of none), with which there is a `loss`. Arrays, or what
                `np.asarray` takes.

        Returns:
            What the model has heads for: `logits`, `last_hidden_state`, `pooler_output`, …

        Raises:
            InputError: an input is missing, or none of this model's.
        """
        interface = self._interface
        if interface is None:
            raise InputError(
                f"what transformers calls the outputs of the family {self.config.family} is not known"
            )
        named, labels = interface.inputs, interface.labels
        unknown = [name for name in inputs if name not in (*named, *labels)]
        first = next(iter(named))
        if unknown or inputs.get(first) is None:
            wrong = f"has no input {', '.join(unknown)}" if unknown else f"needs {first}"
            raise InputError(f"the model {wrong}; it takes {', '.join((*named, *labels))}")
        given = {name: np.asarray(array) for name, array in inputs.items() if array is not None}
        arrays = {ours: given[theirs] for theirs, ours in named.items() if theirs in given}
        outputs = self._computed(self._outputs, interface.completed(self.config, arrays))
        told = {name: jnp.asarray(given[name]) for name in labels if name in given}
        loss = interface.loss(outputs, told) if told else None
        return outputs if loss is None else {"loss": loss, **outputs}

    def _computed(self, program: Callable[..., Any], arrays: dict[str, np.ndarray]) -> Any:
        """What a program makes of arrays, which are padded to what the mesh divides, and cut again."""
        rows, length = arrays["tokens"].shape
        padding = [(0, -size % shards) for size, shards in zip((rows, length), self._shards(), strict=True)]
        if padding[1][1]:
            # No position beyond the row's own: a table may end, or another RoPE begin there.
            ours = {
                "segment_ids": np.ones((rows, length), np.int32),
                "positions": np.broadcast_to(np.arange(length), (rows, length)),
            }
            arrays = ours | arrays
        padded = {name: jnp.asarray(np.pad(array, padding), jnp.int32) for name, array in arrays.items()}
        if self.mesh is None:
            return program(self.parameters, padded)
        whole = length + padding[1][1]

        def cut(array: Array) -> Array:
            return array[:rows, :length] if array.shape[1:2] == (whole,) and array.ndim > 2 else array[:rows]

        with use_mesh(self.mesh, self.rules):
            return jax.tree.map(cut, program(self.parameters, padded))

    def _shards(self) -> tuple[int, int]:
        """What rows and tokens have to be multiples of on the mesh."""
        sizes = {} if self.mesh is None else dict(self.mesh.shape)

        def over(name: str) -> int:
            return math.prod(sizes.get(axis, 1) for axis in self.rules.mesh_axes(name))

        return over("batch"), math.lcm(over("sequence"), over("residual_sequence"))


def from_pretrained(
    path: str | os.PathLike,
    mesh: Mesh | None = None,
    rules: Rules | None = None,
    dtype: DTypeLike | None = None,
) -> PretrainedModel:
    """The model in a local Hugging Face folder: config.json and safetensors.

    Args:
        path: The folder.
        mesh: Where it shall live (`build_mesh`); None: on one device.
        rules: Which mesh axes its axes live on (the default table).
        dtype: Of parameters and computation, float32 or bfloat16. None: parameters as they are stored, and
            the computation in float32 on CPUs, in bfloat16 on GPUs.

    Raises:
        InputError: mjx does not know the model, would compute it differently, or a file is damaged.
    """
    folder = HuggingFaceFolder(path)
    _, config = read_config(folder)
    if dtype is not None:
        name = jnp.dtype(dtype).name
        if name not in ("float32", "bfloat16"):
            raise InputError(f"dtype = {name} is not one that models compute in; choose float32 or bfloat16")
        config = dataclasses.replace(config, dtype=name)
    model = abstract_model(config)
    if mesh is not None:
        abstract = abstract_parameters(model, mesh, rules or default_rules())
    else:
        place = SingleDeviceSharding(jax.local_devices()[0])
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), parameters_of(model)
        )
    parameters = load_pretrained(folder, config, abstract, dtype)
    return PretrainedModel(config, parameters, mesh=mesh, rules=rules, source=folder)


def read_config(folder: HuggingFaceFolder) -> tuple[str, Any]:
    """The family, and the config of ours that config.json describes.

    Raises:
        InputError: mjx does not know the model, or would compute it differently.
    """
    family, architecture = find_architecture(folder.config)
    try:
        return family, architecture.config.to_ours(folder.config, "config.json")
    except InputError as error:
        raise InputError(f"{folder.path}: {error}") from error


def load_pretrained(
    folder: HuggingFaceFolder,
    config: ModelConfig,
    abstract: Tree,
    dtype: DTypeLike | None = None,
    optional: Collection[str] = (),
) -> Tree:
    """The parameters of a Hugging Face folder.

    Args:
        folder: Where they are.
        config: That of its config.json, or one that differs in `training_choices` only.
        abstract: Shapes with shardings.
        dtype: Of the parameters; None: as they are stored.
        optional: Paths of parameters that are left out where the folder lacks them.

    Raises:
        InputError: a file is damaged, or the tensors are not those of the model.
    """
    _, architecture = find_architecture(folder.config)
    with folder.tensors() as tensors:
        names = architecture.name_map(config)
        precise = precise_parameters(abstract_model(config))
        table = as_in_table(tensors, names, architecture)
        return load_parameters(names, table, abstract, dtype, precise, optional)
