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
    )


@dataclasses.dataclass(frozen=True)
class Classes:
    """The labels of a classifier: as many as `id2label` names, which overrules `num_labels`, or two."""

    def names(self) -> Sequence[str]:
        return ("id2label", "label2id", "num_labels", "problem_type")

    def ours(self, theirs: Theirs) -> Fields:
        names, number = theirs.get("id2label"), theirs.get("num_labels")
        if names is not None:
            if not isinstance(names, dict) or not names:
                raise InputError(
                    f'{theirs.where} has "id2label": {shown(names)}, which should be an object of labels'
                )
            number = len(names)
        number = 2 if number is None else number
        if type(number) is not int or number < 1:
            raise InputError(
                f'{theirs.where} has "num_labels": {shown(number)}, which should be a number from 1 on'
            )
        problem = theirs.get("problem_type")
        known = _PROBLEMS[number == 1]
        if problem not in (None, known):
            raise InputError(
                f'{theirs.where} has "problem_type": {shown(problem)} with {number} labels, which mjx does '
                f"not compute; only {shown(known)} is known"
            )
        return {"classes": number, "labels": _labels(theirs, names, number)}

    def theirs(self, config: BertConfig) -> dict[str, Any]:
        number = config.classes or 0
        labels = dict(enumerate(config.labels or (f"LABEL_{label}" for label in range(number))))
        return {
            "id2label": {str(label): name for label, name in labels.items()},
            "label2id": {name: label for label, name in labels.items()},
            "num_labels": number,
            "problem_type": _PROBLEMS[number == 1],
        }


_PROBLEMS = ("single_label_classification", "regression")


def _labels(theirs: Theirs, names: Any, number: int) -> list[Any]:
    """The names in the order of their numbers; none of a number, or where they only count."""
    listed = [(names or {}).get(str(label)) for label in range(number)]
    if names is None or number == 1 or listed == [f"LABEL_{label}" for label in range(number)]:
        return []
    if any(not isinstance(name, str) for name in listed) or len(set(listed)) < number:
        raise InputError(
            f'{theirs.where} has "id2label": {shown(names)}, which should give each number from 0 to '
            f"{number - 1} a name of its own"
        )
    return listed


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
