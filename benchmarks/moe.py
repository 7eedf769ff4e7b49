"""Mixtures of experts on this machine: the grouped path, every expert on every token, and transformers.

    python benchmarks/moe.py                     # growth with the number of experts, and against the others
    python benchmarks/moe.py --rounds 7 --tokens 8192

Forward and backward of one layer in float32. Contenders run in turns, several rounds; the table has medians
of CPU milliseconds (all threads: other work on the machine counts less) and of the ratios within a round.
transformers (its Mixtral block, `pip install torch==2.13.0`) is left out where it is not installed.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from mjx.models.common.mlp import MLPConfig
from mjx.models.common.moe import MoEConfig
from mjx.models.common.moe.dispatch import dispatch
from mjx.models.common.moe.experts import Weights
from mjx.models.common.moe.router import Routing

EMBED, FEATURES = 256, 512
Step = Callable[[], None]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer's numbers."""

    config: MoEConfig
    x: np.ndarray
    router: np.ndarray
    weights: Weights


def layer_of(tokens: int, experts: int, top_k: int) -> Layer:
    """Random numbers of a usual size."""
    random = np.random.RandomState(0)

    def draw(*shape: int) -> np.ndarray:
        return random.randn(*shape).astype(np.float32) / np.float32(shape[-2] ** 0.5)

    config = MoEConfig(
        experts=experts,
        top_k=top_k,
        mlp=MLPConfig(features=FEATURES, activation="silu", gated=True),
    )
    kernels = draw(experts, EMBED, FEATURES), draw(experts, EMBED, FEATURES), draw(experts, FEATURES, EMBED)
    x = random.randn(1, tokens, EMBED).astype(np.float32)
    return Layer(config, x, draw(EMBED, experts), Weights(*kernels, None, None, None))


def routing(layer: Layer, x: Any, router: Any) -> Routing:
    """Mixtral's."""
    logits, ids = jax.lax.top_k(x @ router, layer.config.top_k)
    return Routing(ids, jax.nn.softmax(logits, axis=-1))


def grouped(layer: Layer, x: Any, router: Any, weights: Weights) -> Any:
    """mjx."""
    return dispatch(layer.config, x, routing(layer, x, router), weights).y


def every_expert(layer: Layer, x: Any, router: Any, weights: Weights) -> Any:
    """All experts on all tokens, of which most count for nothing."""
    ids, probabilities = routing(layer, x, router)
    share = jnp.zeros((*x.shape[:2], layer.config.experts))
    share = share.at[0, jnp.arange(x.shape[1])[:, None], ids[0]].set(probabilities[0])
    gate, up = (jnp.einsum("bsd,edf->ebsf", x, kernel) for kernel in (weights.gate, weights.up))
    hidden = jax.nn.silu(gate) * up * jnp.moveaxis(share, -1, 0)[..., None]
    return jnp.einsum("ebsf,efd->bsd", hidden, weights.down)


def in_jax(function: Callable[..., Any], layer: Layer) -> Step:
    """Compiled, warm."""

    def loss(x: Any, router: Any, weights: Weights) -> Any:
        return jnp.sum(jnp.square(function(layer, x, router, weights)))

    program = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    arguments = jax.device_put((layer.x, layer.router, layer.weights))

    def step() -> None:
        jax.block_until_ready(program(*arguments))

    step()
    return step


def in_transformers(layer: Layer) -> Step | None:
    """Its Mixtral block with these weights; None where it is not installed."""
    try:
        import torch
        from transformers import MixtralConfig
        from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
    except ImportError:
        return None
    config = MixtralConfig(
        hidden_size=EMBED,
        intermediate_size=FEATURES,
        num_local_experts=layer.config.experts,
        num_experts_per_tok=layer.config.top_k,
    )
    config._experts_implementation = "grouped_mm"  # the fastest of those that a CPU has
    block = MixtralSparseMoeBlock(config).train()
    x = torch.tensor(layer.x)

    def step() -> None:
        block.zero_grad()
        given = x.clone().requires_grad_()
        made = block(given)
        (made[0] if isinstance(made, tuple) else made).square().sum().backward()

    try:
        step()
    except (RuntimeError, ValueError, KeyError):
        config._experts_implementation = "eager"
        step()
    return step


def rounds(steps: dict[str, Step], number: int) -> dict[str, list[float]]:
    """CPU milliseconds of each contender, in turns."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(number):
        for name, step in steps.items():
            start = time.process_time()
            step()
            found[name].append(1e3 * (time.process_time() - start))
    return found


def ratio(times: dict[str, list[float]], name: str, base: str) -> float:
    """The median, within rounds."""
    return statistics.median(a / b for a, b in zip(times[name], times[base], strict=True))


def print_growth(console: Console, options: argparse.Namespace) -> None:
    """One row for each number of experts, one for each top_k."""
    table = Table(title=f"grouped path, {options.tokens} tokens, forward and backward", show_edge=False)
    for heading in ("experts", "top_k", "CPU ms", "× the first"):
        table.add_column(heading, justify="right")
    shapes = [(experts, 2) for experts in options.experts] + [(options.experts[0], k) for k in (4, 8)]
    steps: dict[str, Step] = {}
    for experts, top_k in shapes:
        layer = layer_of(options.tokens, experts, top_k)
        steps[f"{experts}/{top_k}"] = in_jax(grouped, layer)
    times = rounds(steps, options.rounds)
    first = next(iter(steps))
    for experts, top_k in shapes:
        name = f"{experts}/{top_k}"
        median = statistics.median(times[name])
        table.add_row(str(experts), str(top_k), f"{median:.0f}", f"{ratio(times, name, first):.2f}")
    console.print(table)


def print_others(console: Console, options: argparse.Namespace) -> None:
    """Against every expert on every token, and transformers."""
    table = Table(title="2048 tokens, top-2, forward and backward: CPU ms (× grouped)", show_edge=False)
    for heading in ("experts", "grouped", "every expert", "transformers"):
        table.add_column(heading, justify="right")
    for experts in options.experts[:2]:
        layer = layer_of(2048, experts, 2)
        steps = {"grouped": in_jax(grouped, layer), "every expert": in_jax(every_expert, layer)}
        if other := in_transformers(layer):
            steps["transformers"] = other
        times = rounds(steps, options.rounds)
        cells = []
        for name in ("grouped", "every expert", "transformers"):
            if name not in times:
                cells.append("not installed")
                continue
            median = statistics.median(times[name])
            cells.append(f"{median:.0f} ({ratio(times, name, 'grouped'):.1f})")
        table.add_row(str(experts), *cells)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--experts", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    console = Console()
    print_growth(console, options)
    print_others(console, options)


if __name__ == "__main__":
    main()
