"""The string that says which sub-layers a hybrid has, one symbol for each, as Megatron-Core writes it."""

from typing import NamedTuple

from mjx.errors import InputError

MIXERS = {
    "M": "ssd",
    "m": "selective_scan",
    "*": "attention",
    "-": "mlp",
    "E": "moe",
    "S": "shared_block",
}
"""Symbol → the field of the config, and the name, of its mixer. `m` and `S` are not Megatron's."""
SHARED = "S"
"""What stands behind it reads what it makes."""

_NOT_THERE = {
    "G": "a gated delta network",
    "+": "multi-head latent attention",
    "D": "sparse attention of DeepSeek",
}
_CUT, _DEPTH, _OPEN, _CLOSE = "|", "/", "(", ")"


class Place(NamedTuple):
    """What the pattern says of one sub-layer."""

    symbol: str
    beside: bool = False
    """Whether it reads what the sub-layer in front reads, behind one norm."""


def read_pattern(pattern: str, where: str = "model.hybrid_pattern") -> tuple[Place, ...]:
    """The sub-layers in order, without the marks between pipeline stages, which change nothing.

    Raises:
        InputError: it is no pattern, or has what mjx does not; a caret stands under the place.
    """
    if not pattern:
        raise InputError(f"{where} is empty; it needs a symbol for every sub-layer, such as M-M*-")
    kinds = {symbol: pattern.index(symbol) for symbol in "*+D" if symbol in pattern}
    if len(kinds) > 1:
        (one, _), (other, at), *_ = sorted(kinds.items(), key=lambda item: item[1])
        raise _refusal(where, f"'{other}' together with '{one}', another kind of attention", pattern, at)
    places: list[Place] = []
    opened: int | None = None
    """How many places are in front of the bracket that is open."""
    for at, symbol in enumerate(pattern):
        if symbol == _DEPTH:
            raise _refusal(where, "'/', multi-token prediction, which mjx does not have yet", pattern, at)
        if symbol == _CUT:
            if at in (0, len(pattern) - 1) or pattern[at - 1] == _CUT:
                raise _refusal(where, "an empty segment beside '|'", pattern, at)
            if opened is not None:
                raise _refusal(where, "'|' between sub-layers that read the same", pattern, at)
        elif symbol == _OPEN:
            if opened is not None:
                raise _refusal(where, "'(' within brackets", pattern, at)
            opened = len(places)
        elif symbol == _CLOSE:
            if opened is None or len(places) < opened + 2:
                raise _refusal(where, "')' without a '(' and two sub-layers in front of it", pattern, at)
            opened = None
        elif symbol in _NOT_THERE:
            message = f"'{symbol}', {_NOT_THERE[symbol]}, which mjx does not have yet"
            raise _refusal(where, message, pattern, at)
        elif symbol not in MIXERS:
            message = f"'{symbol}', which is no symbol (choose from {', '.join(MIXERS)})"
            raise _refusal(where, message, pattern, at)
        elif symbol == SHARED and (opened is not None or at == len(pattern) - 1):
            wrong = "with nothing behind it that reads it" if opened is None else "within brackets"
            raise _refusal(where, f"'S' {wrong}", pattern, at)
        else:
            places.append(Place(symbol, beside=opened is not None and len(places) > opened))
    if opened is not None:
        raise _refusal(where, "'(' without a ')'", pattern, pattern.rindex(_OPEN))
    return tuple(places)


def symbols_of(pattern: str, where: str = "model.hybrid_pattern") -> str:
    """The symbols in order, whatever stands between them."""
    return "".join(place.symbol for place in read_pattern(pattern, where))


def uncut(pattern: str) -> str:
    """Without the marks between pipeline stages."""
    return pattern.replace(_CUT, "")


def has_brackets(pattern: str) -> bool:
    """Whether sub-layers stand side by side, which Megatron cannot say."""
    return _OPEN in pattern


def check_length(pattern: str, num_layers: int, where: str) -> None:
    """Raise `InputError` if a pattern has not so many sub-layers."""
    found = len(symbols_of(pattern, where))
    if found != num_layers:
        message = f"{found} sub-layers, where num_layers says {num_layers}"
        raise _refusal(where, message, pattern, len(pattern) if found < num_layers else len(pattern) - 1)


def missing(pattern: str, field: str) -> InputError:
    """The refusal of a pattern with a symbol whose mixer is not described."""
    symbol = next(symbol for symbol, name in MIXERS.items() if name == field)
    return _refusal(
        "model.hybrid_pattern",
        f"'{symbol}', which needs model.{field}; that is null",
        pattern,
        pattern.index(symbol),
    )


def by_ratios(num_layers: int, attention: float, mlp: float) -> str:
    """The pattern that Megatron makes of shares of attention and MLPs, its older way to say it.

    Attention stands behind equally long stretches of what is no attention, MLPs behind equally long ones of
    Mamba-2; a stretch ends where less than half a sub-layer of it is left.
    """
    symbols = ["M"] * num_layers
    free = num_layers
    for symbol, ratio, ends in (("*", attention, 1), ("-", mlp, 0)):
        count = round(num_layers * ratio)
        free -= count
        if not count:
            continue
        stretch = free / (count + ends)
        left = stretch
        for at in (at for at, taken in enumerate(symbols) if taken == "M"):
            if left < 0.5:
                symbols[at] = symbol
                left += stretch
            else:
                left -= 1
    return "".join(symbols)


def _refusal(where: str, message: str, pattern: str, at: int) -> InputError:
    return InputError(f"{where} has {message}:\n  {pattern}\n  {' ' * at}^")
