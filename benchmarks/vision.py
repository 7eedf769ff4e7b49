"""Pictures per second on the CPU: DINOv2's ViT-S/14 by mjx and by transformers in turn, on the same pictures.

Run: python benchmarks/vision.py [--folder DIR] [--torch-python PATH] [--pictures 64] [--batch 8] [--rounds 5]

Without a folder the weights are random. Both are given prepared pictures of 224 × 224 pixels in batches,
and give the last hidden states, of which the class tokens are compared, in float32. The contenders are
processes of their own with the same number of threads, and compile or warm up on a batch first. Ratios are
medians over rounds of the times within one round, since what disturbs a shared machine lasts longer than a
round; beside them those of processor time.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from in_turns import in_turns, work

Features = Callable[[np.ndarray], np.ndarray]

SETTINGS = {
    **{"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "mlp_ratio": 4},
    **{"image_size": 518, "patch_size": 14},
}


def mjx_features(folder: str) -> Features:
    """mjx through its public API, in a process that is set up as its commands set theirs up."""
    import jax

    from mjx.launch import RuntimeConfig, start
    from mjx.models.common.parameter import bind
    from mjx.models.huggingface import from_pretrained

    start(RuntimeConfig())
    model = from_pretrained(folder, dtype="float32")

    @jax.jit
    def program(parameters, images):
        vision = bind(model.definition, parameters)
        return vision(vision.pictures(images))[:, 0]

    return lambda images: np.asarray(program(model.parameters, images))


def transformers_features(folder: str) -> Features:
    """`Dinov2Model`, with the attention that it takes by itself."""
    import torch
    from transformers import Dinov2Model

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = Dinov2Model.from_pretrained(folder).eval()

    def features(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(images)).last_hidden_state[:, 0].numpy()

    return features


CONTENDERS = {"mjx": mjx_features, "transformers": transformers_features}


def contender(name: str, options: argparse.Namespace) -> tuple[dict, Callable[[], dict]]:
    """The seconds of all pictures, in every turn."""
    images = np.random.default_rng(0).standard_normal((options.pictures, 3, 224, 224)).astype(np.float32)
    features = CONTENDERS[name](options.folder)
    parts = [images[start : start + options.batch] for start in range(0, len(images), options.batch)]
    np.save(os.path.join(options.folder, f"{name}.npy"), np.concatenate([features(part) for part in parts]))

    def turn() -> dict[str, float]:
        start, cpu = time.perf_counter(), time.process_time()
        for part in parts:
            features(part)
        return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}

    return {}, turn


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", help="of a Dinov2Model; random weights without it")
    parser.add_argument("--torch-python", default=sys.executable, help="one that has transformers")
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="cores that every process may use")
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.threads, lambda: contender(options.worker, options))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if options.folder:
            for file in Path(options.folder).resolve().glob("*"):
                (folder / file.name).symlink_to(file)
        else:
            made = (
                "import sys, torch, transformers as t; torch.manual_seed(0); "
                f"t.Dinov2Model(t.Dinov2Config(**{SETTINGS})).save_pretrained(sys.argv[1])"
            )
            subprocess.run([options.torch_python, "-c", made, temporary], check=True)
        compare(temporary, options)


def compare(folder: str, options: argparse.Namespace) -> None:
    """Rounds of all contenders in turn, and what came of them."""
    commands = {}
    for name in CONTENDERS:
        python = options.torch_python if name == "transformers" else sys.executable
        commands[name] = [python, __file__, "--folder", folder, "--worker", name]
        for key in ("pictures", "batch", "threads"):
            commands[name] += [f"--{key}", str(getattr(options, key))]
    rounds = in_turns(commands, options.rounds)
    for name, results in rounds.items():
        clock = statistics.median(one["seconds"] for one in results)
        print(f"{name}: {options.pictures / clock:.1f} pictures/s (median of {options.rounds} rounds)")
    if len(rounds) < len(CONTENDERS):
        return
    found = [np.load(os.path.join(folder, f"{name}.npy")) for name in CONTENDERS]
    print(f"largest difference of class tokens {np.abs(found[0] - found[1]).max():.1e}")
    ours, theirs = rounds.values()
    ratios = [
        statistics.median(their[key] / our[key] for our, their in zip(ours, theirs, strict=True))
        for key in ("seconds", "cpu")
    ]
    print(f"mjx is {ratios[0]:.2f} times as fast by the clock, {ratios[1]:.2f} by processor time")


if __name__ == "__main__":
    main()
