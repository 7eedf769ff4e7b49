"""Plans, each made in a process of its own."""

import dataclasses
import json
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from mjx.errors import InputError
from mjx.parse import parse
from mjx.plan.read_step import Plan
from mjx.plan.request import PlanRequest

_FATAL = re.compile(
    r"^(?:F\d{4} .*?\] (?!\*\*\*)|LLVM ERROR: |.*Fatal Error[^:]*: |(?=[\w.]+Error: ))(.*)$", re.MULTILINE
)
_LONGEST = 300
"""Characters of a compiler's last words."""


class CompilerDiedError(InputError):
    """The compiler ended its process."""


def plan(request: PlanRequest) -> Plan:
    """Compile the step of a recipe for its cluster, in a child process.

    Raises:
        InputError: something in the recipe or the request does not fit, or the compiler is missing.
        CompilerDiedError: it ended its process; the sentence has its last words.
    """
    with tempfile.TemporaryDirectory(prefix="mjx-plan-") as folder:
        asked, answer = Path(folder) / "request.json", Path(folder) / "result.json"
        asked.write_text(json.dumps(dataclasses.asdict(request)), encoding="utf-8")
        child = subprocess.run(
            [sys.executable, "-m", "mjx.plan.child", str(asked), str(answer)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        if child.returncode != 0 or not answer.exists():
            raise CompilerDiedError(_last_words(request, child.returncode, child.stdout))
        result = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in result:
        raise InputError(result["error"])
    return parse(Plan, result["plan"], "plan")


def _last_words(request: PlanRequest, code: int, output: str) -> str:
    how = f"ended with status {code}"
    if code < 0:
        how = f"was ended by {signal.Signals(-code).name}"
    words = _FATAL.findall(output) or [line for line in output.splitlines() if line.strip()][-1:]
    said = f": {words[-1].strip()[:_LONGEST]}" if words else ""
    return (
        f"the compiler for {request.nodes} × {request.per_node} {request.gpu} {how}{said} "
        "(another mesh or another version of JAX may compile; --compiler cpu needs none of it)"
    )
