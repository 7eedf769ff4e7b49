"""Slurm's compressed host lists: `n[1-3,07],m2` is n1, n2, n3, n07, m2."""

import re

from mjx.errors import InputError

_BRACKET = re.compile(r"\[([^\[\]]*)\]")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def expand_hosts(hosts: str) -> tuple[str, ...]:
    """The names in a Slurm host list, in its order; zero padding and several brackets in one name are kept.

    Raises `InputError` for a list that Slurm could not have written.
    """
    names: list[str] = []
    for pattern in _split_outside_brackets(hosts):
        names.extend(_expand(pattern, hosts))
    return tuple(names)


def expand_counts(counts: str) -> tuple[int, ...]:
    """Slurm's run-length counts (`SLURM_STEP_TASKS_PER_NODE`): `2(x3),1` is 2, 2, 2, 1."""
    expanded: list[int] = []
    for part in counts.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if match is None:
            raise InputError(f"The task counts {counts!r} are not of Slurm's form, such as '2(x3),1'.")
        expanded.extend([int(match[1])] * int(match[2] or 1))
    return tuple(expanded)


def _split_outside_brackets(hosts: str) -> list[str]:
    parts = re.findall(r"(?:[^,\[\]]|\[[^\[\]]*\])+", hosts)
    if not parts or ",".join(parts) != hosts:
        raise InputError(f"The host list {hosts!r} is not of Slurm's form, such as 'n[1-3,07],m2'.")
    return parts


def _expand(pattern: str, hosts: str) -> list[str]:
    bracket = _BRACKET.search(pattern)
    if bracket is None:
        return [pattern]
    prefix, rest = pattern[: bracket.start()], _expand(pattern[bracket.end() :], hosts)
    names: list[str] = []
    for part in bracket[1].split(","):
        match = _RANGE.fullmatch(part)
        if match is None or (match[2] is not None and int(match[2]) < int(match[1])):
            raise InputError(
                f"The host list {hosts!r} has the range {part!r}, which is not like '3' or '1-3'."
            )
        width = len(match[1])
        for number in range(int(match[1]), int(match[2] or match[1]) + 1):
            names.extend(f"{prefix}{number:0{width}d}{suffix}" for suffix in rest)
    return names
