"""What changed in the config since a checkpoint was made."""

from collections.abc import Iterator, Mapping
from typing import Any

from mjx.models.common.parameter import flatten

IGNORED = (
    *("run_dir", "checkpoint.", "logging.", "profile.", "runtime.", "sampling.", "watchdog."),
    *("data.cache_dir", "data.prefetch", "data.threads"),
    *("training.evaluation_interval", "training.evaluation_rows", "training.prompts", "training.stop_at"),
)
"""Nothing of what is learnt depends on these."""


def changes_since(saved: Mapping[str, Any] | str, now: Mapping[str, Any]) -> Iterator[str]:
    """`key: old → new` of every setting that training depends on.

    Changing the mesh is always safe. Changing training.steps or the batch size also changes the
    schedule and the order of the data, as it does in Megatron.
    """
    if isinstance(saved, str):
        return
    old, new = flatten(dict(saved)), flatten(dict(now))
    for key in sorted(old.keys() | new.keys()):
        if not key.startswith(IGNORED) and old.get(key) != new.get(key):
            yield f"{key}: {old.get(key)} → {new.get(key)}"
