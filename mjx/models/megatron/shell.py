"""The words of a shell script's commands, with the variables that it sets itself, and without running it.

Assignments, arrays and command lines are followed in the order in which they stand. What only a running shell
knows, such as the script's arguments, the environment or the output of a command, stays in a word as it is
written: `$1`.
"""

import ast
import operator
import re
from collections.abc import Iterator, Mapping

_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)(\+?)=")
_REFERENCE = re.compile(r"\$(?:\{([^}]*)\}|(\w+|[@*#?!$-]))")
_BODY = re.compile(r"(\w+|[@*#?!$-])(?:\[[@*]\])?(?:(:?[-=])(.*))?", re.DOTALL)
_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_OPENING = ("if", "for", "while", "until", "case")
_CLOSING = ("fi", "done", "esac")
_PREFIXES = ("export", "local", "readonly", "declare", "then", "else", "do", "{")

UNDER_CONDITION = "$(a condition)"
"""The value of arguments that a script gives under a condition."""

Value = str | list[str] | None
"""Of a variable; None: only a running shell knows it."""


def commands(script: str) -> Iterator[list[str]]:
    """The words of every command, in order."""
    variables: dict[str, Value] = {}
    depth = 0
    for raw in _statements(script):
        words = list(raw)
        while words and words[0] in (*_PREFIXES, *_OPENING, *_CLOSING):
            depth += (words[0] in _OPENING) - (words[0] in _CLOSING)
            words = words[1:] if words[0] in _PREFIXES else []
        while words and (assigned := _ASSIGNMENT.match(words[0])):
            value = _assigned(words.pop(0)[assigned.end() :], variables)
            name, added = assigned[1], bool(assigned[2])
            if isinstance(value, list):
                before = variables.get(name)
                before = before if isinstance(before, list) else []
                if depth:  # a condition, which only a running shell decides
                    value = [*(before if added else _conditional(before)), *_conditional(value)]
                elif added:
                    value = [*before, *value]
            elif added or (depth and variables.get(name, value) != value):
                value = None
            variables[name] = value
        if words:
            expanded = [word for written in words for word in _expanded_words(written, variables)]
            yield [word for word in expanded if word.strip()]


def _assigned(written: str, variables: Mapping[str, Value]) -> Value:
    if written.startswith("("):
        lines = _statements(written[1:-1])
        return [word for line in lines for each in line for word in _expanded_words(each, variables)]
    value = _expanded(_unquoted(written), variables)
    if any(word.startswith("--") for word in value.split()):  # arguments, each of which may be open or not
        return value
    return None if written[:1] != "'" and is_open(value) else value


def _conditional(words: list[str]) -> list[str]:
    """Arguments with values that are open."""
    flags = [word for words_of in words for word in words_of.split() if word.startswith("--")]
    return [f"{flag.partition('=')[0]}={UNDER_CONDITION}" for flag in flags]


def is_open(word: str) -> bool:
    """Whether a word has parts that only a running shell knows."""
    return _REFERENCE.search(word) is not None or "$(" in word or "`" in word


def _statements(script: str) -> Iterator[list[str]]:
    """Words as they are written, quotes included, command by command."""
    words: list[str] = []
    word = ""
    position = 0
    while position < len(script):
        char = script[position]
        if char == "\\":
            if script[position + 1 : position + 2] != "\n":
                word += script[position : position + 2]
            position += 2
            continue
        if char in "'\"`(" or script.startswith(("${", "$("), position):
            end = _end_of_group(script, position)
            word += script[position:end]
            position = end
            continue
        if char == "#" and not word:
            position = script.find("\n", position)
            position = len(script) if position < 0 else position
            continue
        if char in "<>":  # a redirection, with its file
            redirection = re.compile(r"[<>]+&?[ \t]*[^\s;&|]*").match(script, position)
            word = word.rstrip("0123456789")
            position = redirection.end() if redirection else position + 1
            continue
        if char in " \t\n;&|":
            words += [word] if word else []
            word = ""
            if char not in " \t" and words:
                yield words
                words = []
        else:
            word += char
        position += 1
    words += [word] if word else []
    if words:
        yield words


def _end_of_group(script: str, start: int) -> int:
    """Where what opens here is closed again: a quotation, `${…}`, `$(…)` or `(…)`."""
    position = start + 2 if script[start] == "$" else start + 1
    opening = script[position - 1]
    closing = {"(": ")", "{": "}"}.get(opening, opening)
    while position < len(script) and script[position] != closing:
        char = script[position]
        comment = char == "#" and opening == "(" and script[position - 1] in " \t\n("
        if comment:
            end = script.find("\n", position)
            position = len(script) if end < 0 else end
        elif char == "\\" and opening != "'":
            position += 2
        elif opening != "'" and (
            script.startswith(("${", "$("), position) or (char in "'\"`(" and opening == "(")
        ):
            position = _end_of_group(script, position)
        else:
            position += 1
    return position + 1


def _expanded_words(written: str, variables: Mapping[str, Value]) -> list[str]:
    """A word as it reaches a command: an array, or a variable without quotes, may be several, or none."""
    whole = _REFERENCE.fullmatch(written.strip('"'))
    if whole is not None:
        body = _BODY.fullmatch(whole[1] or whole[2])
        value = variables.get(body[1]) if body else None
        if isinstance(value, list):
            return value if written.startswith('"') else _split(value)
    expanded = _expanded(_unquoted(written), variables)
    if written[:1] in "'\"" or not _REFERENCE.search(written):
        return [expanded]
    return _split([expanded])


def _split(words: list[str]) -> list[str]:
    """At blanks, but for those of what only a running shell knows."""
    return [part for word in words for part in ([word] if UNDER_CONDITION in word else word.split())]


def _unquoted(written: str) -> str:
    """Without the quotes; within single ones nothing is expanded, which scripts of arguments do not need."""
    parts = re.split(r"('[^']*'|\"(?:\\.|[^\"\\])*\")", written, flags=re.DOTALL)
    plain = (part[1:-1] if part[:1] in ("'", '"') and len(part) > 1 else part for part in parts)
    return re.sub(r"\\(.)", r"\1", re.sub(r"\\\n", " ", "".join(plain)))


def _expanded(word: str, variables: Mapping[str, Value]) -> str:
    def arithmetic(match: re.Match[str]) -> str:
        inner = re.sub(r"(?<![\w$])([A-Za-z_]\w*)", r"$\1", match[1])
        try:
            return str(_calculated(_expanded(inner, variables)))
        except (SyntaxError, ValueError, KeyError, ZeroDivisionError):
            return match[0]

    def reference(match: re.Match[str]) -> str:
        body = _BODY.fullmatch(match[1] or match[2])
        value = variables.get(body[1]) if body else None
        if isinstance(value, list):
            return " ".join(value)
        if body and body[3] is not None and not value:
            return _expanded(_unquoted(body[3]), variables)
        return match[0] if value is None else value

    word = re.sub(r"\$\(\((.*?)\)\)", arithmetic, word, flags=re.DOTALL)
    return _REFERENCE.sub(reference, word)


def _calculated(text: str) -> int:
    def value(node: ast.expr) -> int:
        match node:
            case ast.BinOp(left=left, op=operation, right=right):
                return _OPERATORS[type(operation)](value(left), value(right))
            case ast.Constant(value=int(number)):
                return number
        raise ValueError(text)

    return value(ast.parse(text.replace("/", "//").strip(), mode="eval").body)
