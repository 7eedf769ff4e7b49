"""Where the stack of a GPT keeps what other libraries number by layer."""

from collections.abc import Mapping, Sequence

from mjx.models.common.parameter import parameters_of
from mjx.models.family import abstract_model
from mjx.models.gpt.config import GPTConfig
from mjx.models.interop.name_map import NameMap, Row


def name_map(
    config: GPTConfig,
    rows: Sequence[Row],
    *,
    copies: Mapping[str, str] | None = None,
    ignored: Sequence[str] = (),
) -> NameMap:
    """A table's rows, for the model of this config."""

    def place(kind: str, layer: int) -> tuple[str, int]:
        return config.places[2 * layer + ("attention", "mlp").index(kind)]

    shapes = parameters_of(abstract_model(config))
    return NameMap(rows, config.num_layers, place, shapes, copies=copies, ignored=ignored)


def norm_rows(config: GPTConfig, theirs: str, ours: str) -> list[Row]:
    """The gain of a norm, and its bias where the model's norms have one."""
    rows = [Row(f"{theirs}.weight", f"{ours}.scale")]
    if config.norm.kind == "layernorm":
        rows.append(Row(f"{theirs}.bias", f"{ours}.bias"))
    return rows
