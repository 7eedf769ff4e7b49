"""Makes rope.npz with transformers: `python make_goldens.py` where torch and transformers are installed.

Per case the cosines and sines of `positions` (float32, one row) as Llama's rotary embedding makes them
(GPT-J's for the interleaved case), and `queries` rotated by them.
"""

import json
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig
from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb as rotate_interleaved
from transformers.models.gptj.modeling_gptj import create_sinusoidal_positions
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as rotate_halves

HEADS = 2
POSITIONS = [0, 1, 2, 3, 17, 500, 2047, 8191, 40000]
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
}


def main():
    positions = torch.tensor([POSITIONS])
    arrays = {"positions": np.array(POSITIONS, np.int32), "cases": json.dumps(CASES)}
    for number, case in enumerate(CASES.values()):
        head_dim = case["head_dim"]
        random = np.random.default_rng(number)
        queries = random.normal(size=(1, len(POSITIONS), HEADS, head_dim)).astype(np.float32)
        if case["rope_type"] == "interleaved":
            table = create_sinusoidal_positions(max(POSITIONS) + 1, head_dim)[positions]
            sin, cos = torch.split(table, head_dim // 2, dim=-1)
            rotated = rotate_interleaved(torch.tensor(queries), sin, cos)
        else:
            parameters = {name: value for name, value in case.items() if name != "head_dim"}
            config = LlamaConfig(
                hidden_size=HEADS * head_dim,
                num_attention_heads=HEADS,
                head_dim=head_dim,
                max_position_embeddings=65536,
                rope_parameters=parameters,
            )
            cos, sin = LlamaRotaryEmbedding(config)(torch.tensor(queries), positions)
            first = torch.tensor(queries).transpose(1, 2)
            rotated = rotate_halves(first, first, cos, sin)[0].transpose(1, 2)
            cos, sin = cos[..., : head_dim // 2], sin[..., : head_dim // 2]
        arrays |= {f"{number}.cos": cos[0].numpy(), f"{number}.sin": sin[0].numpy()}
        arrays |= {f"{number}.queries": queries[0], f"{number}.rotated": rotated[0].numpy()}
    np.savez_compressed(Path(__file__).with_name("rope.npz"), **arrays)


if __name__ == "__main__":
    main()
