"""The matrix products of a compiled program, counted: the FLOPs that a device computes in one step."""

import collections
import dataclasses
import math
import re

from mjx.plan.program.hlo import Instruction, Program

_ATTENTION = "__cudnn$fmha"
_KERNELS = ("triton", "mosaic")
"""In the names of custom calls that are kernels, into which nothing here can see."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Products:
    """FLOPs of one device in one step, a multiply-add counted as two."""

    matmul: float
    attention: float
    """Inside of cuDNN's fused attention; of a causal mask half, the backward pass 2.5 times the forward."""
    kernels: dict[str, float]
    """Custom kernels, whose FLOPs are not known → their calls in one step."""
    exact: bool
    """False where a loop of unknown length was counted once."""

    @property
    def known(self) -> float:
        """All that could be counted."""
        return self.matmul + self.attention


def count_products(program: Program) -> Products:
    """Of a whole step: loops are multiplied out, and of a conditional the branch with more of them counts."""

    def weight(instruction: Instruction) -> float:
        return _matmul(program, instruction) + _attention(program, instruction)

    matmul = attention = 0.0
    kernels: dict[str, float] = collections.defaultdict(float)
    exact = True
    for execution in program.executions(weight):
        instruction = execution.instruction
        found = weight(instruction)
        matmul += execution.count * _matmul(program, instruction)
        attention += execution.count * _attention(program, instruction)
        exact = exact and (execution.exact or not found)
        target = custom_call_target(instruction)
        if any(name in target.lower() for name in _KERNELS):
            kernels[target] += execution.count
    return Products(matmul=matmul, attention=attention, kernels=dict(kernels), exact=exact)


def attention_workspace(program: Program) -> float:
    """Bytes that cuDNN's attention asks for while it runs, which XLA's buffers do not show.

    Its backward pass sums the gradient of the queries in float32 (a buffer of their size).
    """
    calls = (i for body in program.computations.values() for i in body.values())
    sizes = [
        4.0 * math.prod(call.results[0].shape)
        for call in calls
        if custom_call_target(call).startswith(_ATTENTION) and "Backward" in custom_call_target(call)
    ]
    return max(sizes, default=0.0)


def custom_call_target(instruction: Instruction) -> str:
    """What a custom call calls; empty for other instructions."""
    if instruction.opcode != "custom-call":
        return ""
    found = re.search(r'custom_call_target="([^"]*)"', instruction.attributes)
    return found.group(1) if found else ""


def _matmul(program: Program, instruction: Instruction) -> float:
    if instruction.opcode == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
        dimensions = contracted.group(1) if contracted else ""
    elif custom_call_target(instruction).startswith("__cublas"):
        contracted = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', instruction.attributes)
        dimensions = contracted.group(1).replace('"', "") if contracted else ""
    elif instruction.opcode == "convolution":
        return _convolution(program, instruction)
    else:
        return 0.0
    left = program.operand_types(instruction)[0]
    depth = math.prod(left.shape[int(dimension)] for dimension in dimensions.split(",") if dimension)
    return 2.0 * depth * math.prod(instruction.results[0].shape)


def _convolution(program: Program, instruction: Instruction) -> float:
    """Every output element meets each tap of its kernel."""
    labels = re.search(r"dim_labels=\w+_(\w+)->", instruction.attributes)
    if labels is None:
        return 0.0
    kernel = program.operand_types(instruction)[1].shape
    taps = math.prod(kernel) / kernel[labels.group(1).index("o")]
    return 2.0 * taps * math.prod(instruction.results[0].shape)


def _attention(program: Program, instruction: Instruction) -> float:
    """`4 · batch · heads · queries · keys · head_dim` forward (Dao 2023)."""
    target = custom_call_target(instruction)
    if not target.startswith(_ATTENTION):
        return 0.0
    batch, heads, queries, head_dim = instruction.results[0].shape
    keys = program.operand_types(instruction)[1].shape[1]  # (batch, keys, heads, head_dim)
    causal = 0.5 if "CAUSAL" in instruction.attributes else 1.0
    passes = 2.5 if "Backward" in target else 1.0
    return 4.0 * batch * heads * queries * keys * head_dim * causal * passes
