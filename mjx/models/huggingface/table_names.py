"""The names under which a Hugging Face checkpoint may hold what its table names."""

import re
from collections.abc import Mapping

import numpy as np

from mjx.models.huggingface.packed import PARTS, unpacked
from mjx.models.interop.architecture import Architecture
from mjx.models.interop.name_map import NameMap
from mjx.models.interop.tensor_layout import InMemory, Tensor


def as_in_table(
    tensors: Mapping[str, Tensor], names: NameMap, architecture: Architecture
) -> Mapping[str, Tensor]:
    """With the names of the table, for a checkpoint with other ones, or of the model without its head; and
    what it holds packed as what it is.

    Raises:
        InputError: what is packed cannot be unpacked.
    """
    expected, prefix = names.theirs, architecture.prefix
    table = {
        name: ours
        for pattern, called in architecture.aliases.items()
        for name in tensors
        if (match := re.fullmatch(pattern, name)) and (ours := match.expand(called)) not in tensors
    }
    if not any(name in expected and name.startswith(prefix) for name in tensors):
        known = {*expected, *(f"{name}{part}" for name in expected for part in PARTS)}
        table |= {name: f"{prefix}{name}" for name in tensors if f"{prefix}{name}" in known}
    renamed = {table.get(name, name): tensor for name, tensor in tensors.items()} if table else tensors
    absent = [name for name in architecture.zeros if name in expected and name not in renamed]
    zeros = {name: InMemory(np.zeros(expected[name], np.float32)) for name in absent}
    return unpacked({**renamed, **zeros} if zeros else renamed, expected)
