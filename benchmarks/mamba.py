"""Training steps on this machine: Mamba-2, a GPT of as many parameters, and transformers' Mamba2.

    python benchmarks/mamba.py
    python benchmarks/mamba.py --rounds 7 --sequence 4096

Whole steps (loss, gradients, AdamW) in float32 on the same tokens. Contenders run in turns, several rounds;
the table has medians of processor seconds (all threads: other work on the machine counts less) and of the
ratios within a round. transformers takes its path without kernels, as it does on any CPU; it is left out
where it is not installed (`pip install torch==2.13.0 transformers`).
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from mjx.batch import token_batch
from mjx.launch import RuntimeConfig, start
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.rope import RoPEConfig
from mjx.models.common.state_space import SSDConfig
from mjx.models.family import ModelConfig
from mjx.models.gpt import GPTConfig
from mjx.models.mamba import MambaConfig
from mjx.training.trainer import Trainer

HIDDEN, LAYERS, VOCAB, STATE = 256, 8, 4096, 64
Step = Callable[[], float]
"""Runs one step, waits for all of its results and returns the loss."""


def mamba() -> MambaConfig:
    return MambaConfig(
        hidden_size=HIDDEN,
        vocab_size=VOCAB,
        hybrid_pattern="M" * LAYERS,
        ssd=SSDConfig(state=STATE, groups=1),
        tie_embeddings=True,
    )


def gpt() -> GPTConfig:
    """Half as many layers, of two sub-layers each, and an MLP that makes up for the rest."""

    def of(features: int) -> GPTConfig:
        return GPTConfig(
            num_layers=LAYERS // 2,
            hidden_size=HIDDEN,
            vocab_size=VOCAB,
            attention=AttentionConfig(num_heads=HIDDEN // 64, rope=RoPEConfig()),
            mlp=MLPConfig(features=features, activation="silu", gated=True),
            norm=NormConfig(kind="rmsnorm"),
            tie_embeddings=True,
        )

    missing = mamba().num_parameters() - of(8).num_parameters()
    return of(8 + round(missing / (LAYERS // 2 * 3 * HIDDEN) / 8) * 8)


def in_mjx(config: ModelConfig, tokens: np.ndarray) -> Step:
    rows, sequence = tokens[:, 1:].shape
    trainer = Trainer(config, steps=1000, batch=token_batch(rows, sequence))
    state = trainer.init(seed=0)
    batch = {"tokens": tokens[:, :-1], "labels": tokens[:, 1:]}
    batch["loss_mask"] = np.ones(batch["tokens"].shape, np.float32)

    def step() -> float:
        nonlocal state
        state, metrics = trainer.step(state, batch)
        return float(metrics["loss"])

    return step


def in_transformers(tokens: np.ndarray) -> Step | None:
    """The same Mamba-2; None where it is not installed."""
    try:
        import torch
        from transformers import Mamba2Config, Mamba2ForCausalLM
    except ImportError:
        return None
    config = Mamba2Config(
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        vocab_size=VOCAB,
        state_size=STATE,
        head_dim=64,
        num_heads=2 * HIDDEN // 64,
        n_groups=1,
        chunk_size=128,
        tie_word_embeddings=True,
        use_cache=False,
    )
    model = Mamba2ForCausalLM(config).float().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    given = torch.from_numpy(tokens[:, :-1].astype(np.int64))

    def step() -> float:
        optimizer.zero_grad()
        loss = model(given, labels=given).loss
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def rounds(steps: dict[str, Step], number: int) -> dict[str, list[float]]:
    """Processor seconds of each contender, in turns, after one step that compiles."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(number):
        for name, step in steps.items():
            begin = time.process_time()
            step()
            found[name].append(time.process_time() - begin)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--sequence", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    start(RuntimeConfig(platform="cpu"))
    tokens = np.random.RandomState(0).randint(0, VOCAB, (options.rows, options.sequence + 1)).astype(np.int32)
    configs = {"Mamba-2": mamba(), "GPT": gpt()}
    steps = {name: in_mjx(config, tokens) for name, config in configs.items()}
    if other := in_transformers(tokens):
        steps["transformers' Mamba2"] = other
    times = rounds(steps, options.rounds)
    table = Table(title=f"{options.rows} × {options.sequence} tokens, a training step", show_edge=False)
    for heading in ("", "parameters", "processor s", "tokens / processor s", "× Mamba-2's speed"):
        table.add_column(heading, justify="right")
    for name, seconds in times.items():
        speed = statistics.median(a / b for a, b in zip(times["Mamba-2"], seconds, strict=True))
        median = statistics.median(seconds)
        size = configs.get(name, configs["Mamba-2"]).num_parameters()
        table.add_row(
            *(name, f"{size:,}", f"{median:.2f}", f"{tokens[:, 1:].size / median:,.0f}", f"{speed:.2f}")
        )
    Console().print(table)


if __name__ == "__main__":
    main()
