"""Prefill and decode tokens per second of a 135M Llama on the CPU: mjx and Hugging Face, taking turns.

Run: python benchmarks/generate.py [--torch-python PATH] [--batch 1] [--prompt 64] [--new 64] [--rounds 5]

The shape is SmolLM-135M's: 30 layers, hidden size 576, 9 query heads and 3 key/value heads of 64, SwiGLU of
1536, 49152 tokens in a tied table; float32, random weights, greedy. The contenders are processes of their
own with the same number of threads. In each round every one generates the same number of tokens twice,
one token and `--new` tokens: the first is the prefill, the difference the decoding. Ratios are medians over
rounds of the times within one round, since what disturbs a shared machine lasts longer than a round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

LAYERS, HIDDEN, HEADS, KV_HEADS, MLP, VOCAB = 30, 576, 9, 3, 1536, 49152
ROPE_BASE, NORM_EPSILON = 10_000.0, 1e-5

Generate = Callable[[int], None]
"""Continues the prompts by this many tokens."""


def prompts(batch: int, length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, VOCAB, (batch, length))


def mjx_generate(batch: int, length: int) -> Generate:
    """mjx through its public API."""
    import jax
    from flax import nnx

    from mjx.inference import Generator, SamplingConfig
    from mjx.models.common.attention import AttentionConfig
    from mjx.models.common.mlp import MLPConfig
    from mjx.models.common.norm import NormConfig
    from mjx.models.common.parameter import parameters_of
    from mjx.models.common.rope import RoPEConfig
    from mjx.models.gpt import GPTConfig

    config = GPTConfig(
        num_layers=LAYERS,
        hidden_size=HIDDEN,
        vocab_size=VOCAB,
        attention=AttentionConfig(
            num_heads=HEADS, num_query_groups=KV_HEADS, rope=RoPEConfig(base=ROPE_BASE)
        ),
        mlp=MLPConfig(features=MLP, activation="silu", gated=True),
        norm=NormConfig(kind="rmsnorm", epsilon=NORM_EPSILON),
        tie_embeddings=True,
        dtype="float32",
    )
    model = jax.eval_shape(lambda: config.build(nnx.Rngs(0)))
    parameters = jax.jit(lambda: parameters_of(config.build(nnx.Rngs(0))))()
    generator = Generator(model, parameters)
    del parameters
    rows = prompts(batch, length).tolist()

    def run(new: int) -> None:
        texts = generator(rows, SamplingConfig(max_new_tokens=new, temperature=0.0))
        assert all(len(text) == new for text in texts)

    return run


def hugging_face_generate(batch: int, length: int) -> Generate:
    """`LlamaForCausalLM.generate` with torch's fused attention and its default cache."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=MLP,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=2048,
        rms_norm_eps=NORM_EPSILON,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(config).float().eval()
    tokens = torch.from_numpy(prompts(batch, length))
    mask = torch.ones_like(tokens)

    def run(new: int) -> None:
        with torch.inference_mode():
            out = model.generate(
                tokens,
                attention_mask=mask,
                max_new_tokens=new,
                min_new_tokens=new,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )
        assert out.shape == (batch, length + new)

    return run


CONTENDERS = {"mjx": mjx_generate, "hugging-face": hugging_face_generate}


def worker(name: str, options: argparse.Namespace) -> None:
    """Answers each line of standard input with the seconds of one token and of `--new` tokens."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    # Before the libraries start their thread pools, whose sizes follow from it.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        generate = CONTENDERS[name](options.batch, options.prompt)
    except ImportError as error:
        print(json.dumps({"error": str(error)}), file=answers, flush=True)
        return
    start = time.perf_counter()
    for new in (1, options.new):
        generate(new)
    print(json.dumps({"first": time.perf_counter() - start}), file=answers, flush=True)
    for _ in sys.stdin:
        seconds = []
        for new in (1, options.new):
            start = time.perf_counter()
            generate(new)
            seconds.append(time.perf_counter() - start)
        print(json.dumps({"one": seconds[0], "all": seconds[1]}), file=answers, flush=True)


def measure(options: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Contender → the seconds of each round."""
    processes: dict[str, subprocess.Popen[str]] = {}
    rounds: dict[str, list[dict[str, float]]] = {}

    def answer(name: str) -> dict:
        process = processes[name]
        line = process.stdout.readline() if process.stdout else ""
        return json.loads(line) if line else {"error": f"its process ended with code {process.wait()}"}

    try:
        for name in options.only.split(","):
            python = options.torch_python if name == "hugging-face" else sys.executable
            command = [python, __file__, "--worker", name]
            for key in ("batch", "prompt", "new", "threads"):
                command += [f"--{key}", str(getattr(options, key))]
            processes[name] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            first = answer(name)  # one at a time: compiling takes all cores
            if "error" in first:
                print(f"{name}: left out, {first['error']}")
            else:
                print(f"{name}: first calls {first['first']:.1f} s, compilation included")
                rounds[name] = []
        for _ in range(options.rounds):
            for name, results in rounds.items():
                time.sleep(options.pause)
                pipe = processes[name].stdin
                assert pipe is not None
                pipe.write("\n")
                pipe.flush()
                results.append(answer(name))
    finally:
        for process in processes.values():
            process.communicate()
    return rounds


def show(rounds: dict[str, list[dict[str, float]]], options: argparse.Namespace) -> None:
    drawn = options.batch * (options.new - 1)
    print(f"{'tokens/s':14}{'prefill':>9}{'best':>9}{'decode':>9}{'best':>9}{'÷ first: prefill, decode':>27}")
    reference = next(iter(rounds.values()), [])
    for name, results in rounds.items():
        prefill = [result["one"] for result in results]
        decode = [result["all"] - result["one"] for result in results]
        speeds = [options.batch * options.prompt / f(prefill) for f in (statistics.median, min)]
        speeds += [drawn / f(decode) for f in (statistics.median, min)]
        ratios = (
            statistics.median(
                ours["one"] / theirs["one"] for ours, theirs in zip(reference, results, strict=True)
            ),
            statistics.median(
                (ours["all"] - ours["one"]) / (theirs["all"] - theirs["one"])
                for ours, theirs in zip(reference, results, strict=True)
            ),
        )
        print(
            f"{name:14}"
            + "".join(f"{speed:9.1f}" for speed in speeds)
            + "".join(f"{r:13.2f}" for r in ratios)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(CONTENDERS), help="contenders, by commas")
    parser.add_argument(
        "--torch-python", default=sys.executable, help="interpreter with torch and transformers"
    )
    parser.add_argument("--batch", type=int, default=1, help="prompts at once")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of a prompt")
    parser.add_argument("--new", type=int, default=64, help="tokens to generate, at least 2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="cores that every process may use")
    parser.add_argument(
        "--pause", type=float, default=0.3, help="seconds before a turn: idle threads stop spinning"
    )
    parser.add_argument("--json", help="write all measurements to this file")
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return worker(options.worker, options)
    rounds = measure(options)
    show(rounds, options)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rounds, file, indent=2)


if __name__ == "__main__":
    main()
