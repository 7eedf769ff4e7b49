"""Pictures per second on the CPU: DINOv2's ViT-S/14 by mjx and by transformers in turn, on the same pictures.

Run: python benchmarks/vision.py [--folder DIR] [--torch-python PATH] [--pictures 64] [--batch 8] [--rounds 5]

Without a folder the weights are random. Both are given prepared pictures of 224 × 224 pixels in batches,
and give the last hidden states, of which the class tokens are compared, in float32. The contenders are
processes of their own with the same number of threads, and compile or warm up on a batch first. Ratios are
medians over rounds of the times within one round, since what disturbs a shared machine lasts longer than a
round; beside them those of processor time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

Features = Callable[[np.ndarray], np.ndarray]

SETTINGS = {
    **{"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "mlp_ratio": 4},
    **{"image_size": 518, "patch_size": 14},
}


def mjx_features(folder: str) -> Features:
    """mjx through its public API."""
    import jax

    from mjx.models.common.parameter import bind
    from mjx.models.huggingface import from_pretrained

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


def work(name: str, folder: str, images: np.ndarray, batch: int) -> None:
    """Answer each line on standard input with the seconds, of the clock and of the processor."""
    features = CONTENDERS[name](folder)
    parts = [images[start : start + batch] for start in range(0, len(images), batch)]
    features(parts[0])
    found = np.concatenate([features(part) for part in parts])
    np.save(os.path.join(folder, f"{name}.npy"), found)
    print("ready", flush=True)
    for _ in sys.stdin:
        clock, processor = time.perf_counter(), time.process_time()
        for part in parts:
            features(part)
        print(json.dumps([time.perf_counter() - clock, time.process_time() - processor]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", help="of a Dinov2Model; random weights without it")
    parser.add_argument("--torch-python", default=sys.executable, help="one that has transformers")
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    images = np.random.default_rng(0).standard_normal((options.pictures, 3, 224, 224)).astype(np.float32)
    if options.work:
        work(*options.work, images, options.batch)
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
    sizes = ["--pictures", str(options.pictures), "--batch", str(options.batch)]
    children = {}
    for name in CONTENDERS:
        python = sys.executable if name == "mjx" else options.torch_python
        children[name] = subprocess.Popen(
            [python, __file__, *sizes, "--work", name, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )
        assert children[name].stdout.readline() == "ready\n"
    found = [np.load(os.path.join(folder, f"{name}.npy")) for name in CONTENDERS]
    print(f"largest difference of class tokens {np.abs(found[0] - found[1]).max():.1e}")
    times: dict[str, list[list[float]]] = {name: [] for name in CONTENDERS}
    for number in range(options.rounds):
        for name in list(CONTENDERS)[:: 1 if number % 2 else -1]:
            child = children[name]
            child.stdin.write("go\n")
            child.stdin.flush()
            times[name].append(json.loads(child.stdout.readline()))
    for child in children.values():
        child.stdin.close()
        child.wait()
    for name, rounds in times.items():
        clock = statistics.median(one[0] for one in rounds)
        print(f"{name}: {options.pictures / clock:.1f} pictures/s (median of {options.rounds} rounds)")
    ratios = [
        statistics.median(
            theirs[at] / ours[at] for theirs, ours in zip(*reversed(times.values()), strict=True)
        )
        for at in range(2)
    ]
    print(f"mjx is {ratios[0]:.2f} times as fast by the clock, {ratios[1]:.2f} by processor time")


if __name__ == "__main__":
    main()
