"""What changed in the config since a checkpoint was made."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from mjx.config import RunConfig, difference_from_defaults
from mjx.parse import to_tree
from mjx.trees import flatten

IGNORED = (
    *("run_dir", "checkpoint.", "logging.", "profile.", "runtime.", "sampling.", "watchdog."),
    *("data.cache_dir", "data.prefetch", "data.threads", "data.validation."),
    *("training.evaluation_interval", "training.evaluation_rows", "training.prompts", "training.stop_at"),
)
"""Nothing of what is learnt depends on these."""


def changes_since(saved: Mapping[str, Any] | str, config: RunConfig) -> Iterator[str]:
    """`key: old → new` of every setting that training depends on.

    A setting that did not exist when `saved` was written had what is now its default.

    Changing the mesh is always safe. Changing training.steps or the batch size also changes the
    schedule and the order of the data, as it does in Megatron.
    """
    if isinstance(saved, str):
        return
    old, new = flatten(dict(saved)), flatten(to_tree(config))
    decided = difference_from_defaults(config)
    for key in sorted(old.keys() | new.keys()):
        if key not in old and key not in decided:
            continue
        before, now = old.get(key), new.get(key)
        if isinstance(before, str):  # earlier versions kept paths as they were given
            before = os.path.expanduser(before)
        if not key.startswith(IGNORED) and before != now:
            yield f"{key}: {before} → {now}"
