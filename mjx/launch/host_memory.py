"""How the C library hands memory out to steps that allocate the same arrays again and again."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""mallopt(3)'s parameters."""
_MOST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let glibc give out again what was freed, instead of handing it back to the system and asking anew.

    XLA's CPU backend frees all temporaries of a step at its end, and allocates them in a thread of its own,
    whose arena maps every large block afresh: each step then begins with a page fault for every 4 KiB
    (151,000 in `benchmarks/train_step.py`, none with this). Call it before threads begin. False: this C
    library has no such settings.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = {_ARENA_MAX: 1, _MMAP_THRESHOLD: _MOST, _TRIM_THRESHOLD: _MOST}
    return all([mallopt(name, value) for name, value in settings.items()])
