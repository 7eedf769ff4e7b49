"""One name for every tensor of a model, however Megatron-Core wrote it.

A checkpoint may have all layers stacked (`decoder.layers.mlp.linear_fc2.weight`) or one by one
(`decoder.layers.7.mlp.linear_fc2.weight`), a layer's experts stacked (`experts.experts.linear_fc1.weight`) or
one by one (`experts.experts.3.linear_fc1.weight`; of a grouped layer `experts.linear_fc1.weight3`), the norm
before a projection by the name that it has inside Transformer Engine's fused layer or by its own, and apart
the halves of a gated MLP's first projection, or the parts of a state space's projection and convolution: each
of several devices has its share of every part, which whole parts hide. Here they are what `state_dict()` of a
model with the local layer spec on one device calls them.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from mjx.errors import InputError
from mjx.models.interop.tensor_layout import Index, Shape, Tensor

_WRAPPERS = re.compile(r"^(?:(?:module|model)\.)+")
_NO_PARAMETER = re.compile(
    r"(?:optimizer|chained_\d+|rng_state|rerun_state_machine_state|opt_param_scheduler)\b.*"
    r"|.*\._extra_state\b.*"
)
_STACKED = re.compile(r"(.*\blayers)\.(?!\d+\.)(.+)")
_FUSED_NORMS = (
    (re.compile(r"\bself_attention\.linear_qkv\.layer_norm_"), "input_layernorm."),
    (re.compile(r"\bmlp\.linear_fc1\.layer_norm_"), "pre_mlp_layernorm."),
    (re.compile(r"\bmixer\.in_proj\.layer_norm_"), "norm."),
)
_STACKED_EXPERTS = re.compile(r"(.*\bexperts)\.experts\.(?!\d+\.)(.+)")
_EXPERT = re.compile(r"(.*\bexperts)\.experts\.(\d+)\.(.+)")
_GROUPED_EXPERT = re.compile(r"(.*\bexperts)\.(linear_fc\d\.(?:weight|bias))(\d+)")
_PARTS = (
    (re.compile(r"(.*\.linear_fc1\.(?:weight|bias))_([wv])"), "w v"),
    (re.compile(r"(.*\.in_proj\.weight)\.(z|x|B|C|dt)"), "z x B C dt"),
    (re.compile(r"(.*\.conv1d\.(?:weight|bias))\.([xBC])"), "x B C"),
)
"""Names of parts of a tensor, and the parts in their order."""


def is_parameter(name: str) -> bool:
    """Whether a tensor of this name belongs to the model: not to the optimizer or to random numbers."""
    return _NO_PARAMETER.fullmatch(_WRAPPERS.sub("", name)) is None


def with_own_norms(name: str) -> str:
    """The name of a tensor; of a norm inside a fused layer its own."""
    for pattern, own in _FUSED_NORMS:
        name = pattern.sub(own, name)
    return name


def local_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A model's tensors, one per layer and expert, by the names of the local layer spec.

    Raises:
        InputError: two tensors have the same one.
    """
    found: dict[str, tuple[str, Tensor]] = {}
    apart: dict[tuple[str, str], dict[str, tuple[str, Tensor]]] = {}

    def add(name: str, written: str, tensor: Tensor) -> None:
        if name in found:
            raise InputError(f"the checkpoint holds {name} twice, as {found[name][0]} and as {written}")
        found[name] = written, tensor

    for written, tensor in tensors.items():
        name = with_own_norms(_WRAPPERS.sub("", written))
        layers = _apart(_STACKED, "{}.{}.{}", name, tensor)
        experts = [
            (_expert_name(each), part)
            for layer in layers
            for each, part in _apart(_STACKED_EXPERTS, "{}.local_experts.{}.{}", *layer)
        ]
        for each, part in experts:
            for pattern, order in _PARTS:
                if one := pattern.fullmatch(each):
                    apart.setdefault((one[1], order), {})[one[2]] = (written, part)
                    break
            else:
                add(each, written, part)
    for (name, order), parts in apart.items():
        if len(parts) == len(order.split()):
            ordered = [parts[each] for each in order.split()]
            add(name, ordered[0][0], _Joined([part for _, part in ordered]))
        else:
            for written, part in parts.values():
                add(written, written, part)
    return {name: tensor for name, (_, tensor) in found.items()}


def _apart(stacked: re.Pattern[str], apart: str, name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """What is stacked along the first axis of a tensor with such a name; another tensor itself."""
    found = stacked.fullmatch(name)
    if found is None:
        return [(name, tensor)]
    number = tensor.shape[0] if tensor.shape else 0
    return [(apart.format(found[1], at, found[2]), _One(tensor, at)) for at in range(number)]


def _expert_name(name: str) -> str:
    if one := _EXPERT.fullmatch(name):
        return f"{one[1]}.local_experts.{one[2]}.{one[3]}"
    if one := _GROUPED_EXPERT.fullmatch(name):
        return f"{one[1]}.local_experts.{one[3]}.{one[2]}"
    return name


class _One:
    """One of what a tensor has along its first axis: a layer, an expert."""

    def __init__(self, stacked: Tensor, at: int) -> None:
        self._stacked, self._at = stacked, at

    @property
    def shape(self) -> Shape:
        return tuple(self._stacked.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        return self._stacked.dtype

    def read(self, index: Index = ()) -> np.ndarray:
        return self._stacked.read((slice(self._at, self._at + 1), *index))[0]


class _Joined:
    """Tensors one after the other along their first axis."""

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self._parts = parts

    @property
    def shape(self) -> Shape:
        return sum(part.shape[0] for part in self._parts), *self._parts[0].shape[1:]

    @property
    def dtype(self) -> np.dtype:
        return self._parts[0].dtype

    def read(self, index: Index = ()) -> np.ndarray:
        start, stop, _ = (index or (slice(None),))[0].indices(self.shape[0])
        read, first = [], 0
        for part in self._parts:
            low, high = (min(max(end - first, 0), part.shape[0]) for end in (start, stop))
            read.append(part.read((slice(low, high), *index[1:])))
            first += part.shape[0]
        return np.concatenate(read)
