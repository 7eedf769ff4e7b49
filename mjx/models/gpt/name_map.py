"""How other libraries number the layers of a GPT."""

from collections.abc import Mapping, Sequence

from mjx.models.gpt.config import GPTConfig
from mjx.models.interop.name_map import NameMap, Row
from mjx.models.interop.stack_map import in_pairs, stack_name_map


def name_map(
    config: GPTConfig,
    rows: Sequence[Row],
    *,
    copies: Mapping[str, str] | None = None,
    ignored: Sequence[str] = (),
) -> NameMap:
    """A table's rows, where attention and the MLP behind it are one layer."""
    numbering = in_pairs(len(config.pattern))
    return stack_name_map(config, rows, numbering, copies=copies, ignored=ignored)
