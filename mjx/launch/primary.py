"""Work that process 0 does for the whole run: every process learns how it ended."""

from collections.abc import Callable

import jax
import numpy as np

from mjx.errors import InputError

_DONE, _REFUSED, _FAILED = 0, 1, 2


def on_primary(action: Callable[[], int | None]) -> int:
    """Runs `action` on process 0 alone and gives its integer (0 for None) to every process.

    All processes must call this, in the same order. When the action raises, all of them raise: process 0
    the exception itself, the others one that points there. Nobody is left waiting for a process that has
    given up, which is why nothing that can fail should be done under a bare `if process_index() == 0`.
    """
    if jax.process_count() == 1:
        return action() or 0

    from jax.experimental import multihost_utils

    outcome, value, error = _DONE, 0, None
    if jax.process_index() == 0:
        try:
            value = action() or 0
        except InputError as refusal:
            outcome, error = _REFUSED, refusal
        except Exception as failure:
            outcome, error = _FAILED, failure
    with jax.transfer_guard("allow"):
        outcome, value = multihost_utils.broadcast_one_to_all(np.array([outcome, value], np.int32)).tolist()
    if error is not None:
        raise error
    if outcome == _REFUSED:
        raise InputError("Process 0 refused to go on: its message says why.")
    if outcome == _FAILED:
        raise RuntimeError("Process 0 failed: its traceback says why.")
    return value
