"""A barrier that gives up: who waits says who is missing."""

import collections

from mjx.launch import coordination

_uses: collections.Counter[str] = collections.Counter()


class BarrierTimeoutError(TimeoutError):
    """Not every process reached a barrier in time."""


def barrier(name: str, timeout_seconds: float) -> None:
    """Wait until every process has called this with `name`; a name can be used again. Returns at once when
    alone.

    It runs over the coordination service, not the devices, so that it cannot hang behind a collective.
    Raises `BarrierTimeoutError`, which names the processes that did not come; do not use the name again then.
    """
    shared = coordination.client()
    if shared is None:
        return
    process_id, num_processes = coordination.place()
    _uses[name] += 1
    key = f"mjx/barrier/{name}/{_uses[name]}"
    shared.key_value_set(f"{key}/{process_id}", "")
    try:
        shared.wait_at_barrier(key, int(timeout_seconds * 1000))
    except RuntimeError as error:
        if "DEADLINE_EXCEEDED" not in str(error):
            raise
        present = {int(entry.rpartition("/")[2]) for entry, _ in shared.key_value_dir_get(f"{key}/")}
        missing = [str(number) for number in range(num_processes) if number not in present]
        raise BarrierTimeoutError(
            f"Barrier {name!r}: after {timeout_seconds:g} s process{'es' if len(missing) > 1 else ''} "
            f"{', '.join(missing) or '(all came too late)'} had not arrived, of {num_processes}."
        ) from None
    shared.key_value_delete(f"{key}/{process_id}")
