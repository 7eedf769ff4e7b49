"""The activations of a model in the order in which it makes them, seen by tracing its loss once."""

import ast
import dataclasses
import itertools
import linecache
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

import jax
from flax import nnx

from mjx.models.common.parameter import bind, parameters_of
from mjx.models.common.stack import Stack
from mjx.plan.program.hlo import Frame
from mjx.plan.program.origin import code_line, functions
from mjx.plan.stacks import sublayers_of, unit_of
from mjx.sharding import Rules, current_module, default_rules
from mjx.sharding.constrain import observe, shard

_PLUMBING = ("jax", "jaxlib", "flax", "mjx.sharding.constrain")
"""Modules (with those inside) between a call of `shard()` and `shard()`."""


@dataclasses.dataclass(frozen=True)
class Activation:
    """What one `shard()` of the model is told of."""

    section: str
    """The scanned unit that makes it, by the path of its parameters, or the model's class."""
    name: str
    """The path of the module that makes it, and what its code calls it."""
    axes: tuple[str | None, ...]
    leaf: jax.ShapeDtypeStruct
    module: str
    """Whose table lays it out, if it has one (`sharding.modules`)."""
    code: str
    """"models/common/mlp.py:100 MLP.__call__"."""
    function: str
    """"models/common/mlp.py MLP.__call__"."""


def activations_of(
    model: Any,
    batch: Mapping[str, jax.ShapeDtypeStruct],
    mesh_shape: Mapping[str, int] | None = None,
    rules: Rules | None = None,
) -> list[Activation]:
    """Of the forward pass of `loss(batch)`, each once: a unit that a stack repeats shows its first repeat.

    Nothing is computed. `mesh_shape` and `rules` are those of the mesh for which the model would choose
    lengths; None: of one device. What a model never gives to `shard()` is not seen: the results of norms and
    residual adds, which lie as what they are made of, and what exists inside kernels and the loss.
    """
    seen: dict[Activation, None] = {}
    stacks: list[_Units] = []

    def note(axes: tuple[str | None, ...], leaf: jax.ShapeDtypeStruct) -> None:
        frames = _callers(sys._getframe(1))
        section, path = _place(_modules(frames), stacks)
        code = frames[0].f_code
        owner = path or type(model).__name__
        if code.co_name != "__call__":
            owner += f".{code.co_name}"
        named = _argument(frames[0]) or " × ".join(name or "·" for name in axes)
        frame = Frame(code.co_filename, frames[0].f_lineno, code.co_qualname)
        where = (section or type(model).__name__, f"{owner} {named}")
        found = Activation(
            *where, axes, leaf, current_module(), code_line([frame]), "".join(functions([frame]))
        )
        seen[found] = None

    with observe(note, mesh_shape or {}, rules or default_rules()):
        jax.eval_shape(
            lambda p, b: bind(model, p).loss(b, model.counts(b))[0], parameters_of(model), dict(batch)
        )
    return list(seen)


class _Units:
    """The sub-layers of one stack, recognised as tracing comes to them: inside a scan they are copies."""

    def __init__(self, stack: Stack):
        self.stack = stack
        self.places = [(path, *held) for path, held in sublayers_of(stack).items()]
        self.current: Any = None
        self.at = -1

    def locate(self, sublayer: Any) -> tuple[str, int]:
        """(path within the stack, repeats) of a sub-layer: the next with its config."""
        if sublayer is not self.current:
            following = [*range(self.at + 1, len(self.places)), *range(self.at + 1)]
            self.at = next(at for at in following if self.places[at][1] == sublayer.config)
            self.current = sublayer
        path, _, repeats = self.places[self.at]
        return path, repeats


def _place(modules: list[nnx.Module], stacks: list[_Units]) -> tuple[str, str]:
    """(section, path) of the innermost of nested modules, outermost first."""
    section, path = "", ""
    for parent, child in itertools.pairwise(modules):
        if isinstance(parent, Stack):
            units = next((units for units in stacks if units.stack is parent), None)
            if units is None:
                stacks.append(units := _Units(parent))
            inner, repeats = units.locate(child)
            path = f"{path}.{inner}".lstrip(".")
            section = unit_of(path)
            if repeats > 1:
                section += f" (one of {repeats} alike)"
        else:
            attributes = (name for name, value in vars(parent).items() if value is child)
            path = f"{path}.{next(attributes, type(child).__name__.lower())}".lstrip(".")
    return section, path


def _callers(frame: FrameType) -> list[FrameType]:
    """The frames of those who called `shard()`, innermost first, without what stands between."""
    assert frame.f_code is shard.__code__
    frames: list[FrameType] = []
    outer: FrameType | None = frame
    while outer is not None:
        module = f"{outer.f_globals.get('__name__', '')}."
        if not module.startswith(tuple(f"{name}." for name in _PLUMBING)):
            frames.append(outer)
        outer = outer.f_back
    return frames


def _modules(frames: list[FrameType]) -> list[nnx.Module]:
    """Those whose methods are running, outermost first."""
    found: list[nnx.Module] = []
    for frame in reversed(frames):
        owner = frame.f_locals.get("self")
        if isinstance(owner, nnx.Module) and not (found and found[-1] is owner):
            found.append(owner)
    return found


def _argument(frame: FrameType) -> str:
    """What the running call of a frame is given first, as the source calls it: `q` of `shard(q, …)`,
    `output(out)` of `shard(self.output(out), …)`, `relayout(x)` of `relayout(x, …)`; empty without source.
    """
    positions = frame.f_code.co_positions()
    line, end, column, end_column = next(itertools.islice(positions, frame.f_lasti // 2, None))
    if line is None or end is None or column is None or end_column is None:
        return ""
    lines = [text.encode() for text in linecache.getlines(frame.f_code.co_filename)[line - 1 : end]]
    if not lines:
        return ""
    lines[-1] = lines[-1][:end_column]
    lines[0] = lines[0][column:]
    try:
        call = ast.parse(b"".join(lines).decode(), mode="eval").body
    except (SyntaxError, UnicodeDecodeError):  # the file has changed since it was imported
        return ""
    if not isinstance(call, ast.Call) or not call.args:
        return ""
    return _short(call.args[0] if ast.unparse(call.func).endswith(shard.__name__) else call)


def _short(expression: ast.expr) -> str:
    """Without `self.`, and of a call's arguments only the first."""
    if isinstance(expression, ast.Call):
        first = _short(expression.args[0]) if expression.args else ""
        return f"{_short(expression.func)}({first})"
    return ast.unparse(expression).removeprefix("self.")
