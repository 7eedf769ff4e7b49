"""Matrix-product FLOPs of any function, counted from its trace."""

import math
from collections.abc import Callable
from typing import Any

import jax


def matmul_flops(function: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
    """FLOPs (a multiply-add is two) of the matrix products and convolutions in one call of `function`.

    Traces without computing; arguments may be `jax.ShapeDtypeStruct`s. A training step without
    recomputation costs three times its loss function: the backward pass multiplies twice where the
    forward pass multiplies once. Attention is counted as it is traced, masked pairs included; a loop
    of unknown length counts once; what happens inside of custom kernels cannot be seen.
    """
    return _count(jax.make_jaxpr(function)(*args, **kwargs).jaxpr)


def _count(jaxpr: Any) -> float:
    return math.fsum(_count_equation(equation) for equation in jaxpr.eqns)


def _count_equation(equation: Any) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        depth = math.prod(equation.invars[0].aval.shape[i] for i in contracted)
        return 2.0 * depth * math.prod(equation.outvars[0].aval.shape)
    if name.startswith("ragged_dot"):  # every row meets one group's matrix
        rows, depth = equation.invars[0].aval.shape[-2:]
        return 2.0 * depth * rows * equation.invars[1].aval.shape[-1]
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        taps = math.prod(kernel) / kernel[params["dimension_numbers"].rhs_spec[0]]  # per output feature
        return 2.0 * taps * math.prod(equation.outvars[0].aval.shape)
    inner = [_count(jaxpr) for value in params.values() for jaxpr in _jaxprs(value)]
    if name == "scan":
        return params["length"] * math.fsum(inner)
    if name == "cond":
        return max(inner, default=0.0)  # one branch runs
    if name == "shard_map":
        axes = params.get("newly_manual_axes", params.get("manual_axes", ()))  # renamed between JAX versions
        shards = math.prod(params["mesh"].shape[axis] for axis in axes)
        return shards * math.fsum(inner)  # traced for one shard
    if name.startswith("custom_vjp") or name.startswith("custom_jvp"):
        return inner[0] if inner else 0.0  # the forward rule repeats the function
    return math.fsum(inner)


def _jaxprs(value: Any) -> list[Any]:
    values = value if isinstance(value, tuple | list) else (value,)
    found = [getattr(item, "jaxpr", item) for item in values]
    return [item for item in found if hasattr(item, "eqns")]
