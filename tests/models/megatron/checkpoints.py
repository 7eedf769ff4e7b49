"""Checkpoints that Megatron-Core wrote (tests/goldens/megatron_checkpoint), and configs of their models."""

import zipfile
from pathlib import Path

import numpy as np

from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.moe import MoEConfig, RouterConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.rope import RoPEConfig
from mjx.models.gpt import GPTConfig

GOLDENS = Path(__file__).parents[2] / "goldens" / "megatron_checkpoint"
NAMES = ("llama", "gpt2", "qwen3", "llama_mixed", "moe", "moe_layers")


def unpack(name: str, folder: Path) -> Path:
    """A checkpoint, in `folder`."""
    with zipfile.ZipFile(GOLDENS / f"{name}.zip") as archive:
        archive.extractall(folder)
    return folder


def expected(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Tokens, and Megatron-Core's logits of them."""
    with np.load(GOLDENS / f"{name}.npz") as golden:
        return golden["tokens"].astype(np.int32), golden["logits"]


def config_of(name: str, **changes) -> GPTConfig:
    gpt2 = name == "gpt2"
    norm = NormConfig(kind="layernorm" if gpt2 else "rmsnorm")
    settings = {
        "vocab_size": 27,
        "num_layers": 4 if name == "llama" else 2,
        "hidden_size": 16,
        "attention": AttentionConfig(
            num_heads=4,
            num_query_groups=None if gpt2 else 2,
            head_dim=6 if name == "qwen3" else None,
            qkv_bias=gpt2,
            output_bias=gpt2,
            qk_norm=norm if name == "qwen3" else None,
            rope=None if gpt2 else RoPEConfig(),
        ),
        "mlp": MLPConfig(features=24, activation="gelu" if gpt2 else "silu", gated=not gpt2, bias=gpt2),
        "norm": norm,
        "max_positions": 32 if gpt2 else None,
        "tie_embeddings": gpt2,
        "dtype": "float32",
    }
    if name.startswith("moe"):
        layers = name == "moe_layers"
        settings["moe"] = MoEConfig(
            experts=4,
            mlp=MLPConfig(features=8, activation="silu", gated=True),
            router=RouterConfig(scores="sigmoid", expert_bias_rate=1e-3),
            shared_features=None if layers else 8,
            shared_gate=not layers,
        )
        settings |= {"dense_layers": 1} if layers else {"mlp": None}
    return GPTConfig(**settings | changes)
