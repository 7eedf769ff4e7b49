"""Plans that several tests look at, compiled once for all of them."""

import dataclasses
import fcntl
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from planning import request

from mjx.parse import parse
from mjx.plan.apart import plan
from mjx.plan.read_step import Plan


@pytest.fixture(scope="session")
def planned(shared: Path) -> Callable[..., Plan]:
    """`plan(request(…))`, made once for all pytest processes; `recipe` and `overrides` are those of its first
    caller. What is asked twice is the whole recipe as it was read, however it was written."""

    def planned(path: str, *overrides: str, **options: Any) -> Plan:
        asked = request(path, *overrides, **options)
        whole = dataclasses.asdict(asked) | {"recipe": dataclasses.asdict(asked.load()), "overrides": ()}
        name = hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()
        file = shared / f"plan-{name}.json"
        with file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not file.exists():
                file.write_text(json.dumps(dataclasses.asdict(plan(asked))))
            return parse(Plan, json.loads(file.read_text()), "plan")

    return planned
