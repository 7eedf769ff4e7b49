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
from mjx.models.huggingface.folder import HuggingFaceFolder
from mjx.models.huggingface.table_names import as_in_table
from mjx.models.interop.architectures import find_architecture
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
        self._forward = jax.jit(
            lambda parameters, arrays: {"logits": bind(self.definition, parameters)(**arrays)}
        )
        self._interface = interface = load_family(config.family).interface
        if interface is not None:
            self._outputs = jax.jit(
                lambda parameters, arrays: interface.outputs(bind(self.definition, parameters), arrays)
            )

    def __call__(
        self,
        tokens: Int[Array, "batch sequence"],
        decoder_tokens: Int[Array, "batch decoder_sequence"] | None = None,
        *,
        attention_mask: Int[Array, "batch sequence"] | None = None,
        positions: Int[Array, "batch sequence"] | None = None,
        segment_ids: Int[Array, "batch sequence"] | None = None,
        decoder_attention_mask: Int[Array, "batch decoder_sequence"] | None = None,
        decoder_positions: Int[Array, "batch decoder_sequence"] | None = None,
        decoder_segment_ids: Int[Array, "batch decoder_sequence"] | None = None,
    ) -> Float[Array, "batch sequence vocab"]:
        """Logits of the next token, in float32; compiled once per shape. Those of an encoder-decoder stand
        behind `decoder_tokens`.

        Args:
            tokens: Ids.
            decoder_tokens: Of a model whose encoder reads `tokens`: what its decoder reads.
            attention_mask: As transformers takes it: 1 for tokens, 0 for padding, whose logits mean nothing.
            positions: Of the tokens; None: counted from the row's start, padding included.
            segment_ids: Documents of packed rows, from 1, which do not see each other; 0 is padding. It
                says all that attention_mask says.
            decoder_attention_mask: As attention_mask, of decoder_tokens; so are the others.
            decoder_positions: …
            decoder_segment_ids: …

        Raises:
            InputError: both masks are given, or the model has no decoder besides, or has one.
        """
        answers = getattr(self.definition, "answers", False)
        of_decoder = {
            "decoder_tokens": decoder_tokens,
            "decoder_positions": decoder_positions,
            "decoder_segment_ids": _segments("decoder_", decoder_attention_mask, decoder_segment_ids),
        }
        if answers and decoder_tokens is None:
            raise InputError("the model has an encoder, which reads tokens; give decoder_tokens too")
        if not answers and any(array is not None for array in of_decoder.values()):
            raise InputError("the model has no encoder, and reads tokens alone; leave the decoder's out")
        segments = _segments("", attention_mask, segment_ids)
        given = {"tokens": tokens, "positions": positions, "segment_ids": segments, **of_decoder}
        arrays = {name: np.asarray(array) for name, array in given.items() if array is not None}
        return self._computed(self._forward, arrays)["logits"]

    def outputs(self, **inputs: Any) -> dict[str, Array]:
        """What transformers' model of this kind returns, by its names, of inputs by its names.

        Args:
            inputs: `input_ids` and, as the model takes them, `attention_mask`, `position_ids`,
                `token_type_ids`, `decoder_input_ids`, `decoder_attention_mask`, `encoder_outputs`, and
                `labels` (-100: of none), with which there is a `loss`. Arrays, or what `np.asarray` takes.

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
        if unknown or all(inputs.get(name) is None for name in interface.needed):
            wrong = (
                f"has no input {', '.join(unknown)}" if unknown else f"needs {' or '.join(interface.needed)}"
            )
            raise InputError(f"the model {wrong}; it takes {', '.join((*named, *labels))}")
        settings = {} if self.source is None else self.source.config
        given = {name: value for name, value in inputs.items() if value is not None}
        given = interface.completed(self.config, settings, given)
        arrays = {ours: np.asarray(given[theirs]) for theirs, ours in named.items() if theirs in given}
        outputs = self._computed(self._outputs, arrays)
        told = {name: jnp.asarray(np.asarray(given[name])) for name in labels if name in given}
        loss = interface.loss(outputs, told) if told else None
        return outputs if loss is None else {"loss": loss, **outputs}

    def _computed(self, program: Callable[..., Any], arrays: dict[str, np.ndarray]) -> dict[str, Array]:
        """What a program makes of arrays, which are padded to what the mesh divides, and cut again: what is
        called encoder_… to the encoder's row, the rest to that of the decoder, where there are both."""
        rules, sides = self.rules, {}
        if self._interface is not None and not self._interface.by_tokens:
            rules = rules.without_tokens()
        of_rows, of_tokens = self._shards(rules)
        for side, names in (("encoder", ("tokens", "states")), ("decoder", ("decoder_tokens",))):
            first = next((arrays[name] for name in names if name in arrays), None)
            if first is None:
                continue
            rows, length = first.shape[:2]
            sides[side] = rows, length
            if -length % of_tokens:
                # No position beyond the row's own: a table may end, or another RoPE begin there.
                prefix = "" if side == "encoder" else "decoder_"
                ours = {
                    f"{prefix}segment_ids": np.ones((rows, length), np.int32),
                    f"{prefix}positions": np.broadcast_to(np.arange(length), (rows, length)),
                }
                arrays = ours | arrays

        def padded(array: np.ndarray) -> Array:
            sizes = (-array.shape[0] % of_rows, -array.shape[1] % of_tokens, *[0] * (array.ndim - 2))
            numbers = array.ndim > 2 and np.issubdtype(array.dtype, np.floating)
            dtype = jnp.float32 if numbers else jnp.int32
            return jnp.asarray(np.pad(array, [(0, size) for size in sizes]), dtype)

        given = {name: padded(array) for name, array in arrays.items()}
        if self.mesh is None:
            return program(self.parameters, given)

        all_rows = len(next(iter(arrays.values())))

        def cut(name: str, array: Array) -> Array:
            if of_tokens == 1:
                return array[:all_rows]
            encoded = name.startswith("encoder_") or "decoder" not in sides
            rows, length = sides["encoder" if encoded else "decoder"]
            whole = length + -length % of_tokens
            return array[:rows, :length] if array.shape[1:2] == (whole,) and array.ndim > 2 else array[:rows]

        with use_mesh(self.mesh, rules):
            return {name: cut(name, array) for name, array in program(self.parameters, given).items()}

    def _shards(self, rules: Rules) -> tuple[int, int]:
        """What rows and tokens have to be multiples of on the mesh."""
        sizes = {} if self.mesh is None else dict(self.mesh.shape)

        def over(name: str) -> int:
            return math.prod(sizes.get(axis, 1) for axis in rules.mesh_axes(name))

        return over("batch"), math.lcm(over("sequence"), over("residual_sequence"))


def _segments(side: str, attention_mask: Any, segment_ids: Any) -> Any:
    """Of the two ways to say what is padding, the one that is given."""
    if attention_mask is not None and segment_ids is not None:
        raise InputError(
            f"{side}attention_mask and {side}segment_ids are both given; {side}segment_ids = 0 is padding too"
        )
    return attention_mask if segment_ids is None else segment_ids


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
    """The family, and the config of ours that config.json describes, and the weights where they are there.

    Raises:
        InputError: mjx does not know the model, or would compute it differently.
    """
    family, architecture = find_architecture(folder.config)
    try:
        config = architecture.config.to_ours(folder.config, "config.json")
    except InputError as error:
        raise InputError(f"{folder.path}: {error}") from error
    try:
        with folder.tensors() as tensors:
            names = tuple(tensors)
    except InputError:  # which says so again where the weights are read
        return family, config
    return family, architecture.told(config, names)


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
