"""Where the stack of a model keeps what other libraries number by layer."""

from collections.abc import Mapping, Sequence

from mjx.models.common.parameter import parameters_of
from mjx.models.common.stacked_config import StackedConfig
from mjx.models.family import abstract_model
from mjx.models.interop.name_map import NameMap, Row, Sublayers

Numbering = Sequence[int]
"""The number of the layer of theirs that each of our sub-layers is in: `[0, 0, 1, 1, …]` where attention and
the MLP behind it are one, `[0, 1, 2, …]` where every sub-layer is a layer."""


def in_pairs(sublayers: int) -> Numbering:
    """Where attention and the MLP behind it are one layer."""
    return [at // 2 for at in range(sublayers)]


def stack_places(
    config: StackedConfig, numberings: Mapping[str, Numbering], kinds: Sequence[str] | None = None
) -> Sublayers:
    """What `{attention}`, `{mlp}`, … (a mixer's name) of a layer of theirs stand for.

    Args:
        config: of the model.
        numberings: of each of its stacks. The kinds of sub-layers of the one in front of the head stand
            alone, those of others have its name: `{encoder_attention}`.
        kinds: what rows call each sub-layer of the one in front of the head; None: as its mixer is called.
    """
    found: dict[tuple[str, int], tuple[str, int]] = {}
    for stack, numbering in numberings.items():
        mixers = [sublayer.mixer.name for sublayer in config.patterns[stack]]
        names = [f"{stack}_{mixer}" for mixer in mixers]
        if stack == config.stack_name:
            names = kinds or mixers
        for name, place, layer in zip(names, config.places_of(stack), numbering, strict=True):
            if (name, layer) in found:
                raise ValueError(f"layer {layer} has two sub-layers {{{name}}}")
            found[name, layer] = place
    return lambda kind, layer: found.get((kind, layer))


def stack_name_map(
    config: StackedConfig,
    rows: Sequence[Row],
    numbering: Numbering | Mapping[str, Numbering],
    *,
    kinds: Sequence[str] | None = None,
    copies: Mapping[str, str] | None = None,
    ignored: Sequence[str] = (),
) -> NameMap:
    """A table's rows for the model of this config; `numbering` is of its one stack, or of all as for
    `stack_places`, `kinds` too."""
    numberings = numbering if isinstance(numbering, Mapping) else {config.stack_name: numbering}
    shapes = parameters_of(abstract_model(config))
    places = stack_places(config, numberings, kinds)
    layers = max((layer for each in numberings.values() for layer in each), default=-1) + 1
    return NameMap(rows, layers, places, shapes, copies=copies, ignored=ignored)
