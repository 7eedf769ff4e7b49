"""Makes rope.npz with transformers: `python make_goldens.py` where torch and transformers are installed.

Per case the cosines and sines of its positions (one row) as Phi-3's rotary embedding makes them (GPT-J's
for the interleaved case), in float32; `queries` rotated by them; and, as transformers has them, the
frequencies and the factor on cosines and sines.
"""

import json
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig
from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb as rotate_interleaved
from transformers.models.gptj.modeling_gptj import create_sinusoidal_positions
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding
from transformers.models.phi3.modeling_phi3 import apply_rotary_pos_emb as rotate_halves

HEADS = 2


def longrope(head_dim: int, factor: float, original: int, **options) -> dict:
    pairs = int(head_dim * options.get("partial_rotary_factor", 1.0)) // 2
    return {
        "head_dim": head_dim,
        "rope_theta": 10000.0,
        "rope_type": "longrope",
        "factor": factor,
        "original_max_position_embeddings": original,
        "short_factor": [round(1 + 0.02 * i, 4) for i in range(pairs)],
        "long_factor": [round(1 + 0.7 * i**1.1, 4) for i in range(pairs)],
        **options,
    }


POSITIONS = [0, 1, 2, 3, 17, 500, 2047, 8191, 40000]
"""Of the cases that do not say `last`; the others have those below it, and it."""
CASES = {
    "plain": {"head_dim": 16, "rope_theta": 10000.0, "rope_type": "default"},
    "large base": {"head_dim": 64, "rope_theta": 500000.0, "rope_type": "default"},
    "linear": {"head_dim": 32, "rope_theta": 10000.0, "rope_type": "linear", "factor": 4.0},
    "llama3": {
        "head_dim": 128,
        "rope_theta": 500000.0,
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "llama3, other bands": {
        "head_dim": 64,
        "rope_theta": 500000.0,
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 2.0,
        "high_freq_factor": 8.0,
        "original_max_position_embeddings": 2048,
    },
    "yarn": {
        "head_dim": 64,
        "rope_theta": 10000.0,
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 4096,
    },
    "yarn, exact ramp": {
        "head_dim": 64,
        "rope_theta": 150000.0,
        "rope_type": "yarn",
        "factor": 32.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        "original_max_position_embeddings": 4096,
    },
    "yarn, own concentration": {
        "head_dim": 32,
        "rope_theta": 10000.0,
        "rope_type": "yarn",
        "factor": 4.0,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
        "attention_factor": 1.25,
        "original_max_position_embeddings": 512,
    },
    "interleaved": {"head_dim": 16, "rope_theta": 10000.0, "rope_type": "interleaved"},
    "a quarter of the head": {
        "head_dim": 80,
        "rope_theta": 10000.0,
        "rope_type": "default",
        "partial_rotary_factor": 0.25,
    },
    "linear, half of the head": {
        "head_dim": 96,
        "rope_theta": 1e6,
        "rope_type": "linear",
        "factor": 8.0,
        "partial_rotary_factor": 0.5,
    },
    "llama3, half of the head": {
        "head_dim": 64,
        "rope_theta": 10000.0,
        "rope_type": "llama3",
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256,
        "partial_rotary_factor": 0.5,
    },
    "yarn, mscale": {
        "head_dim": 64,
        "rope_theta": 10000.0,
        "rope_type": "yarn",
        "factor": 40.0,
        "mscale": 1.0,
        "mscale_all_dim": 0.707,
        "original_max_position_embeddings": 4096,
    },
    "yarn, most of the head, other betas": {
        "head_dim": 80,
        "rope_theta": 1e6,
        "rope_type": "yarn",
        "factor": 2.5,
        "beta_fast": 20.0,
        "beta_slow": 0.5,
        "original_max_position_embeddings": 1024,
        "partial_rotary_factor": 0.75,
    },
    "yarn, ramp beyond the head's features": {
        "head_dim": 8,
        "rope_theta": 100.0,
        "rope_type": "yarn",
        "factor": 4.0,
        "truncate": False,
        "original_max_position_embeddings": 2**21,
    },
    "yarn, factor below one": {
        "head_dim": 16,
        "rope_theta": 10000.0,
        "rope_type": "yarn",
        "factor": 0.5,
        "original_max_position_embeddings": 64,
    },
    "longrope, long row": longrope(96, 32.0, 4096),
    "longrope, short row": longrope(96, 32.0, 4096, last=4095),
    "longrope, first long row": longrope(64, 16.0, 100, last=100),
    "longrope, last short row": longrope(64, 16.0, 100, last=99),
    "longrope, own concentration": longrope(32, 4.0, 2048, attention_factor=1.3),
    "longrope, three quarters of the head": longrope(64, 4.0, 2048, partial_rotary_factor=0.75),
    "longrope, factor of one": longrope(16, 1.0, 512),
}


def main():
    arrays = {"cases": json.dumps(CASES)}
    for number, case in enumerate(CASES.values()):
        head_dim = case["head_dim"]
        last = case.get("last", POSITIONS[-1])
        places = [place for place in POSITIONS if place < last] + [last]
        positions = torch.tensor([places])
        random = np.random.default_rng(number)
        queries = random.normal(size=(1, len(places), HEADS, head_dim)).astype(np.float32)
        arrays[f"{number}.positions"] = np.array(places, np.int32)
        if case["rope_type"] == "interleaved":
            table = create_sinusoidal_positions(max(POSITIONS) + 1, head_dim)[positions]
            sin, cos = torch.split(table, head_dim // 2, dim=-1)
            rotated = rotate_interleaved(torch.tensor(queries), sin, cos)
        else:
            parameters = {name: value for name, value in case.items() if name not in ("head_dim", "last")}
            config = LlamaConfig(
                hidden_size=HEADS * head_dim,
                num_attention_heads=HEADS,
                head_dim=head_dim,
                max_position_embeddings=65536,
                rope_parameters=parameters,
            )
            embedding = Phi3RotaryEmbedding(config)
            cos, sin = embedding(torch.tensor(queries), positions)
            first = torch.tensor(queries).transpose(1, 2)
            rotated = rotate_halves(first, first, cos, sin)[0].transpose(1, 2)
            pairs = cos.shape[-1] // 2
            cos, sin = cos[..., :pairs], sin[..., :pairs]
            arrays[f"{number}.frequencies"] = embedding.inv_freq.numpy()
            arrays[f"{number}.factor"] = np.float64(embedding.attention_scaling)
        arrays |= {f"{number}.cos": cos[0].numpy(), f"{number}.sin": sin[0].numpy()}
        arrays |= {f"{number}.queries": queries[0], f"{number}.rotated": rotated[0].numpy()}
    np.savez_compressed(Path(__file__).with_name("rope.npz"), **arrays)


if __name__ == "__main__":
    main()
