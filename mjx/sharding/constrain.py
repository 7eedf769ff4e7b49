"""`shard()`: say what an activation's dimensions mean, inside a model."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TypeVar

import jax
from jax.sharding import Mesh, PartitionSpec

from mjx.sharding.rules import Rules, default_rules

ArrayT = TypeVar("ArrayT", bound=jax.Array)
Observer = Callable[[tuple[str | None, ...], jax.ShapeDtypeStruct], None]

_rules: contextvars.ContextVar[Rules | None] = contextvars.ContextVar("mjx_rules", default=None)
_observer: contextvars.ContextVar[Observer | None] = contextvars.ContextVar("mjx_observer", default=None)
_meant: contextvars.ContextVar[tuple[Mapping[str, int], Rules] | None] = contextvars.ContextVar(
    "mjx_meant", default=None
)
_module: contextvars.ContextVar[str] = contextvars.ContextVar("mjx_module", default="")


@contextlib.contextmanager
def use_mesh(mesh: Mesh, rules: Rules | None = None) -> Iterator[Mesh]:
    """Within it, models lay their activations out over `mesh` by `rules` (the default table if None).

    Trace a jitted function under one mesh and one table only: the mesh is part of the jit cache's
    key, the table is not.
    """
    token = _rules.set(rules or default_rules())
    try:
        with jax.set_mesh(mesh):
            yield mesh
    finally:
        _rules.reset(token)


@contextlib.contextmanager
def inside(module: str) -> Iterator[None]:
    """Within it, the model's module of this name lays its activations out by its own table, if it has one
    (`sharding.modules`)."""
    with contextlib.ExitStack() as until:
        until.callback(_module.reset, _module.set(module))
        if (rules := _rules.get()) is not None:
            until.callback(_rules.reset, _rules.set(rules.of(module)))
        if (meant := _meant.get()) is not None:
            until.callback(_meant.reset, _meant.set((meant[0], meant[1].of(module))))
        yield


@contextlib.contextmanager
def observe(observer: Observer, sizes: Mapping[str, int], rules: Rules) -> Iterator[None]:
    """Within it, `observer` is told of every `shard()`: how `mjx explain` lists the activations. `sizes` are
    those of the mesh that is meant, which is not in force."""
    tokens = _observer.set(observer), _meant.set((sizes, rules))
    try:
        yield
    finally:
        _observer.reset(tokens[0])
        _meant.reset(tokens[1])


def meant_mesh() -> tuple[Mapping[str, int], Rules]:
    """The mesh that is to divide arrays, and its rules: the one in force, or whose activations are listed."""
    return _meant.get() or (mesh_shape(), current_rules())


def current_rules() -> Rules:
    """The table in force."""
    return _rules.get() or default_rules()


def current_module() -> str:
    """The module of the model that is at work (`inside`); "": none that has a table of its own."""
    return _module.get()


def mesh_shape() -> dict[str, int]:
    """Mesh axis → devices that arrays here can be split over by it; empty without a mesh.

    Inside of a `jax.shard_map` over an axis every device has its own share already: 1.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return {axis: 1 if axis in mesh.manual_axes else size for axis, size in mesh.shape.items()}


def activation_spec(names: tuple[str | None, ...], shape: tuple[int, ...]) -> PartitionSpec:
    """The partition of an activation on the mesh in force."""
    return current_rules().spec(
        names, shape, mesh_shape(), array=f"activation ({', '.join(map(str, names))})"
    )


def parameter_spec(names: tuple[str, ...], shape: tuple[int, ...]) -> PartitionSpec:
    """The partition of a parameter between its uses, on the mesh in force."""
    array = f"parameter ({', '.join(names)})"
    return current_rules().spec(names, shape, mesh_shape(), kind="parameter", array=array)


def shard(x: ArrayT, *names: str | None) -> ArrayT:
    """Constrain `x` to the layout that its logical axes have; without a mesh, `x` itself."""
    if observer := _observer.get():
        observer(names, jax.ShapeDtypeStruct(x.shape, x.dtype))
    shape = mesh_shape()
    if all(size == 1 for size in shape.values()):
        return x
    return jax.lax.with_sharding_constraint(x, activation_spec(names, x.shape))


def relayout(x: ArrayT, source: tuple[str | None, ...], target: tuple[str | None, ...]) -> ArrayT:
    """Move `x` from one layout to another, and its gradient straight back.

    A plain constraint constrains the gradient to the *target* as well: the partial sums that come
    out of a column-parallel product would be all-reduced whole and only then be cut. Constrained to
    the source instead, they are reduce-scattered, as Megatron's sequence parallelism does.
    """
    # The layouts of here and now: a gradient is made outside of the module whose table holds.
    if all(size == 1 for size in mesh_shape().values()):
        return shard(x, *target)
    return _moved(x, activation_spec(source, x.shape), activation_spec(target, x.shape))


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _moved(x: ArrayT, source: PartitionSpec, target: PartitionSpec) -> ArrayT:
    if source != target:
        # What is sent is what stands here: without the barrier XLA may send a cast's input, in float32.
        x = jax.lax.optimization_barrier(jax.lax.with_sharding_constraint(x, source))
    return jax.lax.with_sharding_constraint(x, target)


_moved.defvjp(
    lambda x, source, target: (_moved(x, source, target), None),
    lambda source, target, _, gradient: (jax.lax.with_sharding_constraint(gradient, source),),
)
