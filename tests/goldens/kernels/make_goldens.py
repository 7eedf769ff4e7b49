"""Makes the goldens of the state-space ops: `python make_goldens.py MEGATRON_CASES HUGGINGFACE_CASES`.

ssd.npz: the dual, quadratic form of Dao and Gu 2024 (equation 16; what listing 1 computes in blocks), in
float64 and without any recurrence. mamba2.npz: weights, tokens and results of a two-layer Mamba-2 model of
Megatron-Core 0.16.1 (MEGATRON_CASES/mamba2.npz as it is). mamba.npz: the same of transformers' Mamba-1
(HUGGINGFACE_CASES/mamba: model.safetensors and io.npz in one file).
"""

import shutil
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

HERE = Path(__file__).parent
BATCH, LENGTH, HEADS, HEAD_DIM, STATE = 2, 24, 3, 4, 5


def dual(x, log_decay, B, C):
    """y = (L ∘ C Bᵀ) x with L[i, j] = exp(log_decay of tokens j+1 … i) at and below the diagonal."""
    y = np.zeros_like(x)
    for b in range(x.shape[0]):
        for h in range(x.shape[2]):
            mask = np.zeros((x.shape[1],) * 2)
            for i in range(x.shape[1]):
                for j in range(i + 1):
                    mask[i, j] = np.exp(log_decay[b, j + 1 : i + 1, h].sum())
            y[b, :, h] = (mask * (C[b, :, h] @ B[b, :, h].T)) @ x[b, :, h]
    return y


def main() -> None:
    megatron, huggingface = map(Path, sys.argv[1:])
    random = np.random.RandomState(0)
    x = random.randn(BATCH, LENGTH, HEADS, HEAD_DIM)
    dt = random.rand(BATCH, LENGTH, HEADS)
    A = -np.exp(random.randn(HEADS))
    B, C = random.randn(2, BATCH, LENGTH, HEADS, STATE)
    arrays = {"x": x, "dt": dt, "A": A, "B": B, "C": C, "y": dual(x * dt[..., None], dt * A, B, C)}
    np.savez_compressed(HERE / "ssd.npz", **arrays)
    shutil.copyfile(megatron / "mamba2.npz", HERE / "mamba2.npz")
    weights = load_file(huggingface / "mamba" / "model.safetensors")
    with np.load(huggingface / "mamba" / "io.npz") as io:
        np.savez_compressed(HERE / "mamba.npz", **{f"w/{name}": w for name, w in weights.items()}, **io)


if __name__ == "__main__":
    main()
