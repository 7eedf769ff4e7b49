"""Numbers and lists as people read them."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence


def readable_bytes(size: float) -> str:
    """Of memory: 1536 → 1.5 KiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def readable_gigabytes(size: float) -> str:
    """Of disks and of what is sent, decimal as rates are: 1.25 GB, 50.00 MB, 512 bytes."""
    if size < 1e4:
        return f"{size:.0f} bytes"
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"


def readable_seconds(seconds: float) -> str:
    """Of a step's parts: 1.25 s, 3.1 ms."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.1f} ms"


def duration(seconds: float) -> str:
    """Of a run: 0:42, 12:31, 3:04:05, 2d 03:04."""
    if not math.isfinite(seconds):
        return "?"
    minutes, second = divmod(round(max(seconds, 0.0)), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour:02}:{minute:02}"
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def percent(share: float) -> str:
    """A share of one."""
    return f"{100 * share:.0f} %"


def short_count(value: float) -> str:
    """Three or four figures, for a line that is tight: 812, 41.2k, 1.35M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}" if value < 999.5 * size else f"{value / size:.0f}{unit}"
    return f"{value:.3g}"


def count_words(number: float) -> str:
    """As one says it: 8.03 billion."""
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.3g} {word}"
    return f"{number:,.0f}"


def shape_words(shape: Sequence[int]) -> str:
    """(8, 128) → 8 × 128."""
    return " × ".join(map(str, shape)) or "scalar"


def mesh_words(mesh: Mapping[str, int]) -> str:
    """ "fsdp 64 × tensor 8"."""
    return " × ".join(f"{axis} {size}" for axis, size in mesh.items() if size > 1) or "one device"


def all_of(items: Iterable[object]) -> str:
    """ "a, b and c"."""
    return _listed(items, "and")


def one_of(items: Iterable[object]) -> str:
    """ "a, b or c"."""
    return _listed(items, "or")


def divisors(number: int) -> list[int]:
    """What divides it, for a sentence that says which count would be right."""
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean X?`, or all that is known."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"


def _listed(items: Iterable[object], last: str) -> str:
    *before, final = map(str, items)
    return f"{', '.join(before)} {last} {final}" if before else final
