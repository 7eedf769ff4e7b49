"""What the tables of Hugging Face's encoders have in common, and what no `Key` of theirs can say."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models.bert.config import BertConfig
from mjx.models.bert.config_keys import canonical
from mjx.models.interop.architecture import UNQUANTIZED, WITHOUT_MEANING, Architecture
from mjx.models.interop.canonical import shortest, windowed
from mjx.models.interop.config_map import ConfigMap, Constant, Entry, Fields, Theirs, shown
from mjx.models.interop.name_map import NameMap

NO_TOKEN_HEAD: tuple[Entry, ...] = (Constant("head_transform", None), Constant("head_bias", value=False))
"""Of a model whose outputs are states, or classes."""
POOLER = Constant("pooler", value=True)


def architecture(
    model_type: str,
    class_name: str,
    *entries: Entry,
    names: Callable[[BertConfig, str], NameMap],
    prefix: str,
    aliases: Mapping[str, str] | None = None,
    without_meaning: Sequence[str] = (),
    part: bool = False,
) -> Architecture:
    """One of them, by its tables; the class without heads has no prefix."""
    return Architecture(
        model_type=model_type,
        class_name=class_name,
        config=ConfigMap(BertConfig, (UNQUANTIZED, *entries), (*WITHOUT_MEANING, *without_meaning)),
        name_map=lambda config: names(config, prefix),
        prefix=prefix,
        canonical=canonical,
        aliases=aliases or {},
        part=part,
    )


@dataclasses.dataclass(frozen=True)
class FirstPosition:
    """RoBERTa's rows of positions begin behind that of the pad token's id."""

    def names(self) -> Sequence[str]:
        return ("pad_token_id",)

    def ours(self, theirs: Theirs) -> Fields:
        pad = theirs.get("pad_token_id", 1)
        if type(pad) is not int or pad < 0:
            raise InputError(
                f'{theirs.where} has "pad_token_id": {shown(pad)}, which should be a number from 0 on: '
                "positions are counted from the row behind it"
            )
        return {"first_position": pad + 1}

    def theirs(self, config: BertConfig) -> dict[str, Any]:
        return {"pad_token_id": config.first_position - 1}


@dataclasses.dataclass(frozen=True)
class LocalLayers:
    """ModernBERT's layers that see `local_attention` tokens around them, half of these on either side."""

    def names(self) -> Sequence[str]:
        return ("local_attention", "layer_types", "global_attn_every_n_layers", "num_hidden_layers")

    def local(self, theirs: Mapping[str, Any]) -> tuple[bool, ...]:
        """Whether each layer is one.

        Raises:
            InputError: what says so is no list of as many kinds as there are layers.
        """
        number, types = theirs.get("num_hidden_layers", 22), theirs.get("layer_types")
        every = theirs.get("global_attn_every_n_layers", 3)
        if any(type(count) is not int or count < 1 for count in (number, every)):
            raise InputError(
                f'config.json has "num_hidden_layers": {shown(number)} and "global_attn_every_n_layers": '
                f"{shown(every)}, which should be numbers from 1 on"
            )
        if types is None:
            return tuple(layer % every != 0 for layer in range(number))
        known = ("sliding_attention", "full_attention")
        if not isinstance(types, list) or len(types) != number or any(kind not in known for kind in types):
            raise InputError(
                f'config.json has "layer_types": {shown(types)}, which should be {number} times '
                f"{' or '.join(known)}"
            )
        return tuple(kind == "sliding_attention" for kind in types)

    def ours(self, theirs: Theirs) -> Fields:
        local = self.local(theirs)
        if not any(local):
            return {"attention.window": None, "window_pattern": (True,)}
        around = theirs.get("local_attention", 128)
        if type(around) is not int or around < 0:
            raise InputError(
                f'{theirs.where} has "local_attention": {shown(around)}, which should be a number from 0 on'
            )
        return {"attention.window": around // 2 + 1, "window_pattern": shortest(local)}

    def theirs(self, config: BertConfig) -> dict[str, Any]:
        local = windowed(config.attention, config.window_pattern, config.num_layers)
        window = config.attention.window
        return {
            "layer_types": ["sliding_attention" if each else "full_attention" for each in local],
            **({} if window is None else {"local_attention": 2 * (window - 1)}),
        }
