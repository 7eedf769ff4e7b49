"""Where the stack of a language model keeps what other libraries number by layer."""

from collections.abc import Mapping, Sequence

from mjx.models.common.parameter import parameters_of
from mjx.models.common.token_model.config import TokenModelConfig
from mjx.models.family import abstract_model
from mjx.models.interop.name_map import NameMap, Row, Sublayers


def stack_places(
    config: TokenModelConfig, numbering: Sequence[int], kinds: Sequence[str] | None = None
) -> Sublayers:
    """What `{attention}`, `{mlp}`, … (a mixer's name) of a layer of theirs stand for.

    Args:
        config: of the model.
        numbering: the number of the layer of theirs that each of our sub-layers is in: `[0, 0, 1, 1, …]`
            where attention and the MLP behind it are one, `[0, 1, 2, …]` where every sub-layer is a layer.
        kinds: what rows call each of our sub-layers; None: as its mixer is called.
    """
    kinds = kinds or [sublayer.mixer.name for sublayer in config.pattern]
    found: dict[tuple[str, int], tuple[str, int]] = {}
    for kind, place, layer in zip(kinds, config.places, numbering, strict=True):
        key = (kind, layer)
        if key in found:
            raise ValueError(f"layer {layer} has two sub-layers {{{kind}}}")
        found[key] = place
    return lambda kind, layer: found.get((kind, layer))


def stack_name_map(
    config: TokenModelConfig,
    rows: Sequence[Row],
    numbering: Sequence[int],
    *,
    kinds: Sequence[str] | None = None,
    copies: Mapping[str, str] | None = None,
    ignored: Sequence[str] = (),
) -> NameMap:
    """A table's rows for the model of this config; `numbering` and `kinds` as for `stack_places`."""
    shapes = parameters_of(abstract_model(config))
    places = stack_places(config, numbering, kinds)
    return NameMap(rows, max(numbering, default=-1) + 1, places, shapes, copies=copies, ignored=ignored)
