"""Tokens per second of a training step of a small Llama on the CPU: mjx, JAX, Hugging Face, torch.compile.

Run: python benchmarks/train_step.py [--only mjx,jax] [--torch-python PATH] [--rounds 7] [--json FILE]

Every contender is a process of its own with the same number of threads (the interpreters may differ),
and they take turns: in each round every one runs the same few steps while the others wait for their
standard input. Ratios are medians over rounds of the times within one round, since what disturbs a shared
machine lasts longer than a round. A contender whose libraries are missing is left out, with the reason.

All train the same model on the same batch with the same optimizer: 6 layers, hidden size 384, 6 heads of
64, SwiGLU of 1024, RMSNorm, RoPE, 8192 tokens in the vocabulary, an untied head; 8 × 256 tokens,
float32, AdamW, gradients clipped to a global norm of 1. Plain JAX and Hugging Face start from the same
parameters, so that their losses show that they do the same work.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

LAYERS, HIDDEN, HEADS, HEAD_DIM, MLP, VOCAB = 6, 384, 6, 64, 1024, 8192
BATCH, SEQUENCE = 8, 256
ROPE_BASE, NORM_EPSILON = 10_000.0, 1e-5
OPTIMIZER = {"learning_rate": 3e-4, "b1": 0.9, "b2": 0.95, "eps": 1e-8, "weight_decay": 0.1}
CLIP = 1.0

Step = Callable[[], float]
"""Runs one step, waits for all of its results and returns the loss."""


def batch() -> tuple[np.ndarray, np.ndarray]:
    """Tokens and labels, int32 [batch, sequence]."""
    tokens = np.random.default_rng(0).integers(0, VOCAB, (BATCH, SEQUENCE + 1), dtype=np.int32)
    return tokens[:, :-1], tokens[:, 1:]


def initial_parameters() -> dict[str, Any]:
    """Kernels are [layers, inputs, outputs]."""
    random = np.random.default_rng(1)

    def normal(*shape: int) -> np.ndarray:
        return random.normal(0, 0.02, shape).astype(np.float32)

    width = HEADS * HEAD_DIM
    return {
        "embedding": normal(VOCAB, HIDDEN),
        "layers": {
            "query": normal(LAYERS, HIDDEN, width),
            "key": normal(LAYERS, HIDDEN, width),
            "value": normal(LAYERS, HIDDEN, width),
            "output": normal(LAYERS, width, HIDDEN),
            "gate": normal(LAYERS, HIDDEN, MLP),
            "up": normal(LAYERS, HIDDEN, MLP),
            "down": normal(LAYERS, MLP, HIDDEN),
            "attention_norm": np.ones((LAYERS, HIDDEN), np.float32),
            "mlp_norm": np.ones((LAYERS, HIDDEN), np.float32),
        },
        "norm": np.ones(HIDDEN, np.float32),
        "head": normal(HIDDEN, VOCAB),
    }


def mjx_step() -> Step:
    """mjx through its public API."""
    from mjx.batch import token_batch
    from mjx.launch import RuntimeConfig, start
    from mjx.models.common.attention import AttentionConfig
    from mjx.models.common.mlp import MLPConfig
    from mjx.models.common.norm import NormConfig
    from mjx.models.common.rope import RoPEConfig
    from mjx.models.gpt import GPTConfig
    from mjx.training.optimizer import OptimizerConfig
    from mjx.training.schedule import ScheduleConfig
    from mjx.training.trainer import Trainer

    start(RuntimeConfig(platform="cpu"))
    config = GPTConfig(
        num_layers=LAYERS,
        hidden_size=HIDDEN,
        vocab_size=VOCAB,
        attention=AttentionConfig(num_heads=HEADS, rope=RoPEConfig(base=ROPE_BASE)),
        mlp=MLPConfig(features=MLP, activation="silu", gated=True),
        norm=NormConfig(kind="rmsnorm", epsilon=NORM_EPSILON),
    )
    trainer = Trainer(
        config,
        steps=1000,
        batch=token_batch(BATCH, SEQUENCE),
        optimizer=OptimizerConfig(
            beta2=OPTIMIZER["b2"], weight_decay=OPTIMIZER["weight_decay"], clip_norm=CLIP
        ),
        schedule=ScheduleConfig(kind="constant", learning_rate=OPTIMIZER["learning_rate"]),
    )
    state = trainer.init(seed=0)
    tokens, labels = batch()
    inputs = {"tokens": tokens, "labels": labels, "loss_mask": np.ones(tokens.shape, np.float32)}

    def step() -> float:
        nonlocal state
        state, metrics = trainer.step(state, inputs)
        return float(metrics["loss"])

    return step


def jax_step() -> Step:
    """What one writes in JAX without thinking of speed: einsums over [batch, sequence, heads, head_dim]."""
    import jax
    import jax.numpy as jnp
    import optax

    angles = np.arange(SEQUENCE)[:, None] * ROPE_BASE ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM)
    angles = np.concatenate([angles, angles], axis=-1)[:, None]
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    causal = np.tril(np.ones((SEQUENCE, SEQUENCE), bool))

    def rms_norm(x, scale):
        return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + NORM_EPSILON) * scale

    def rotate(x):
        first, second = jnp.split(x, 2, axis=-1)
        return x * cos + jnp.concatenate([-second, first], axis=-1) * sin

    def layer(x, w):
        def heads(kernel):
            return jnp.einsum("bsd,dhk->bshk", h, kernel.reshape(HIDDEN, HEADS, HEAD_DIM))

        h = rms_norm(x, w["attention_norm"])
        q, k, v = rotate(heads(w["query"])), rotate(heads(w["key"])), heads(w["value"])
        scores = jnp.einsum("bqhk,bshk->bhqs", q, k) / HEAD_DIM**0.5
        probabilities = jax.nn.softmax(jnp.where(causal, scores, -1e30), axis=-1)
        mixed = jnp.einsum("bhqs,bshk->bqhk", probabilities, v)
        x = x + jnp.einsum("bshk,hkd->bsd", mixed, w["output"].reshape(HEADS, HEAD_DIM, HIDDEN))
        h = rms_norm(x, w["mlp_norm"])
        return x + (jax.nn.silu(h @ w["gate"]) * (h @ w["up"])) @ w["down"], None

    def loss_of(parameters, tokens, labels):
        x = jnp.take(parameters["embedding"], tokens, axis=0)
        x, _ = jax.lax.scan(layer, x, parameters["layers"])
        log_probabilities = jax.nn.log_softmax(rms_norm(x, parameters["norm"]) @ parameters["head"])
        return -jnp.mean(jnp.take_along_axis(log_probabilities, labels[..., None], axis=-1))

    optimizer = optax.chain(optax.clip_by_global_norm(CLIP), optax.adamw(**OPTIMIZER))

    def update(state, tokens, labels):
        parameters, moments = state
        loss, gradients = jax.value_and_grad(loss_of)(parameters, tokens, labels)
        updates, moments = optimizer.update(gradients, moments, parameters)
        return (optax.apply_updates(parameters, updates), moments), loss

    parameters = jax.tree.map(jnp.asarray, initial_parameters())
    state = (parameters, optimizer.init(parameters))
    tokens, labels = map(jnp.asarray, batch())
    update = jax.jit(update, donate_argnums=0)

    def step() -> float:
        nonlocal state
        state, loss = jax.block_until_ready(update(state, tokens, labels))
        return float(loss)

    return step


def hugging_face_step(*, compiled: bool = False) -> Step:
    """`LlamaForCausalLM` with torch's fused attention and fused AdamW."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=MLP,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=HEAD_DIM,
        max_position_embeddings=SEQUENCE,
        rms_norm_eps=NORM_EPSILON,
        tie_word_embeddings=False,
        use_cache=False,
        attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(config).float().train()
    model.load_state_dict({k: torch.from_numpy(v) for k, v in _hugging_face_names().items()})
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=OPTIMIZER["learning_rate"],
        betas=(OPTIMIZER["b1"], OPTIMIZER["b2"]),
        eps=OPTIMIZER["eps"],
        weight_decay=OPTIMIZER["weight_decay"],
        fused=True,
    )
    tokens, labels = (torch.from_numpy(array).long() for array in batch())

    def loss_of(tokens, labels):
        return torch.nn.functional.cross_entropy(
            model(input_ids=tokens).logits.flatten(0, 1), labels.flatten()
        )

    if compiled:
        loss_of = torch.compile(loss_of)

    def step() -> float:
        loss = loss_of(tokens, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def _hugging_face_names() -> dict[str, np.ndarray]:
    """The initial parameters under Hugging Face's names; its kernels are [outputs, inputs]."""
    parameters = initial_parameters()
    names = {
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "output": "self_attn.o_proj",
        "gate": "mlp.gate_proj",
        "up": "mlp.up_proj",
        "down": "mlp.down_proj",
        "attention_norm": "input_layernorm",
        "mlp_norm": "post_attention_layernorm",
    }
    state = {
        "model.embed_tokens.weight": parameters["embedding"],
        "model.norm.weight": parameters["norm"],
        "lm_head.weight": parameters["head"].T.copy(),
    }
    for ours, theirs in names.items():
        for index, array in enumerate(parameters["layers"][ours]):
            state[f"model.layers.{index}.{theirs}.weight"] = array.T.copy()
    return state


def torch_compile_step() -> Step:
    """The same with the forward pass and the loss under `torch.compile`."""
    return hugging_face_step(compiled=True)


CONTENDERS: dict[str, Callable[[], Step]] = {
    "mjx": mjx_step,
    "jax": jax_step,
    "hugging-face": hugging_face_step,
    "torch-compile": torch_compile_step,
}
TORCH = ("hugging-face", "torch-compile")


class Contender:
    """A process that has compiled and warmed up its step, and runs some whenever it is asked to."""

    def __init__(self, name: str, python: str, options: argparse.Namespace):
        command = [python, __file__, "--worker", name]
        command += ["--threads", str(options.threads), "--warmup", str(options.warmup)]
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []

    def answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline() if self.process.stdout else ""
        return json.loads(line) if line else {"error": f"its process ended with code {self.process.wait()}"}

    def run(self, steps: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        answer = self.answer()
        if "error" in answer:
            raise RuntimeError(f"{self.name}: {answer['error']}")
        self.seconds.append(answer["seconds"])
        self.cpu_seconds.append(answer["cpu_seconds"])

    def close(self) -> None:
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        self.process.wait()


def worker(name: str, threads: int, warmup: int) -> None:
    """Reads numbers of steps from standard input and answers each with the mean seconds of a step."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    # Before the libraries start their thread pools, whose sizes follow from it.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        step = CONTENDERS[name]()
        losses = [step() for _ in range(warmup)]
    except ImportError as error:
        return answer(error=str(error))
    answer(losses=losses)
    for line in sys.stdin:
        start, cpu = time.perf_counter(), _cpu_seconds()
        for _ in range(int(line)):
            step()
        seconds, cpu = time.perf_counter() - start, _cpu_seconds() - cpu
        answer(seconds=seconds / int(line), cpu_seconds=cpu / int(line))


def _cpu_seconds() -> float:
    """Of all threads: hardly disturbed by what else the machine does."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Start the contenders, let them take turns, and summarise."""
    ready: list[Contender] = []
    losses: dict[str, list[float]] = {}
    skipped: dict[str, str] = {}
    try:
        for name in options.only.split(","):
            contender = Contender(name, options.torch_python if name in TORCH else sys.executable, options)
            ready.append(contender)
            answer = contender.answer()  # one at a time: compiling takes all cores
            if "error" in answer:
                ready.remove(contender)
                contender.close()
                skipped[name] = answer["error"]
            else:
                losses[name] = answer["losses"]
        for _ in range(options.rounds):
            for contender in ready:
                time.sleep(options.pause)
                contender.run(options.steps)
    finally:
        for contender in ready:
            contender.close()
    results = {}
    for contender in ready:
        ratios = {
            other.name: statistics.median(
                theirs / ours for ours, theirs in zip(contender.seconds, other.seconds, strict=True)
            )
            for other in ready
            if other is not contender
        }
        results[contender.name] = {
            "tokens_per_second": BATCH * SEQUENCE / statistics.median(contender.seconds),
            "best_tokens_per_second": BATCH * SEQUENCE / min(contender.seconds),
            "seconds": contender.seconds,
            "cpu_seconds": contender.cpu_seconds,
            "losses": losses[contender.name],
            "times_as_fast_as": ratios,
        }
    settings = {key: getattr(options, key) for key in ("threads", "rounds", "steps", "warmup")}
    return {"settings": settings, "results": results, "skipped": skipped}


def show(report: dict[str, Any]) -> None:
    results = report["results"]
    others = list(results)
    columns = "".join(f"{'÷ ' + name:>16}" for name in others)
    print(f"{'':14}{'tokens/s':>10}{'best':>8}{'CPU s':>8}{'loss':>9}{columns}")
    for name, result in results.items():
        cpu = statistics.median(result["cpu_seconds"])
        ratios = [result["times_as_fast_as"].get(other) for other in others]
        cells = "".join(f"{'':>16}" if ratio is None else f"{ratio:>16.2f}" for ratio in ratios)
        print(
            f"{name:14}{result['tokens_per_second']:>10.0f}{result['best_tokens_per_second']:>8.0f}"
            f"{cpu:>8.2f}{result['losses'][-1]:>9.4f}{cells}"
        )
    for name, reason in report["skipped"].items():
        print(f"{name}: left out, {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(CONTENDERS), help="contenders, by commas, in their order")
    parser.add_argument(
        "--torch-python", default=sys.executable, help="interpreter with torch and transformers"
    )
    parser.add_argument("--threads", type=int, default=2, help="cores that every process may use")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2, help="steps of a contender in one round")
    parser.add_argument("--warmup", type=int, default=3, help="steps before the first round")
    parser.add_argument(
        "--pause", type=float, default=0.3, help="seconds before a turn: idle threads stop spinning"
    )
    parser.add_argument("--json", help="write all measurements to this file")
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return worker(options.worker, options.threads, options.warmup)
    unknown = set(options.only.split(",")) - set(CONTENDERS)
    if unknown:
        parser.error(f"--only names {', '.join(sorted(unknown))}; there are {', '.join(CONTENDERS)}")
    report = measure(options)
    show(report)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=2)


if __name__ == "__main__":
    main()
