"""Makes sampling.npz with transformers: `python make_goldens.py` where torch and transformers are installed.

Logits as its logits processors leave them, for the settings of `cases`; some logits are exactly equal.
"""

import json
from pathlib import Path

import numpy as np
import torch
from transformers.generation.logits_process import (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

CASES = [
    {"temperature": 0.7},
    {"temperature": 1.0, "top_k": 5},
    {"temperature": 1.0, "top_k": 1000},
    {"temperature": 1.0, "top_p": 0.9},
    {"temperature": 1.0, "top_p": 0.05},
    {"temperature": 2.0, "top_p": 0.999},
    {"temperature": 0.5, "top_k": 12, "top_p": 0.8},
]


def main():
    random = np.random.default_rng(0)
    logits = np.concatenate(
        [
            random.normal(0, 3, (4, 97)),
            np.round(random.normal(0, 2, (4, 97))),  # many ties, and -0.0 beside 0.0
            random.normal(0, 0.01, (2, 97)),
        ]
    ).astype(np.float32)
    arrays = {"logits": logits, "cases": json.dumps(CASES)}
    for number, case in enumerate(CASES):
        scores = TemperatureLogitsWarper(case["temperature"])(None, torch.tensor(logits))
        if "top_k" in case:
            scores = TopKLogitsWarper(case["top_k"])(None, scores)
        if "top_p" in case:
            scores = TopPLogitsWarper(case["top_p"])(None, scores)
        arrays[f"filtered_{number}"] = scores.numpy()
    np.savez_compressed(Path(__file__).with_name("sampling.npz"), **arrays)


if __name__ == "__main__":
    main()
