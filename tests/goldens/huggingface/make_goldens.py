"""Makes logits.npz with transformers 5: `python make_goldens.py` where torch and transformers are installed.

Per case, named `model_type seed`: its config.json, a fingerprint of its tensors' names and shapes, and
some of its logits in float32 (`sample` says which). Weights and inputs follow from the seed (variants.py).
"""

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).parent))
import variants

CASES = {
    "gpt2": (3, 41),
    "gpt_neox": (3, 29),
    "llama": (30, 43),
    "mistral": (14, 36),
    "qwen2": (31, 43),
    "qwen3": (3, 39),
    "phi3": (4, 61),
    "olmo2": (6, 75),
    "nemotron": (6, 26),
    "gemma2": (13, 63),
    "gemma3_text": (15, 56),
}
"""Seeds that between them have most of the options of variants.py."""


def theirs_of(kind: str, seed: int) -> tuple[dict[str, tuple[int, ...]], torch.nn.Module]:
    """The shapes of the tensors as they are in a checkpoint, and the model with the seed's weights."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(variants.config_of(kind, seed)))
        config = AutoConfig.from_pretrained(folder)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
        model.save_pretrained(folder)  # which renames some tensors
        with safe_open(f"{folder}/model.safetensors", "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    renamed = {"lm_head.weight": "embed_out.weight"} if kind == "gpt_neox" else {}
    weights = variants.weights_of(kind, shapes, seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(weights[renamed.get(name, name)]))
    return shapes, model


def logits_of(model: torch.nn.Module, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(tokens), attention_mask=torch.from_numpy(mask)).logits.numpy()


def sample(logits: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """200 of the logits of tokens, from everywhere."""
    told = logits[mask.astype(bool)].reshape(-1)
    return told[np.random.RandomState(0).permutation(told.size)[:200]]


def main() -> None:
    arrays: dict[str, np.ndarray] = {}
    for kind, seeds in CASES.items():
        for seed in seeds:
            config = variants.config_of(kind, seed)
            shapes, model = theirs_of(kind, seed)
            tokens, mask = variants.inputs_of(config["vocab_size"], seed)
            case = f"{kind} {seed}"
            arrays[f"{case}/config"] = np.array(json.dumps(config))
            arrays[f"{case}/tensors"] = np.array(variants.fingerprint(shapes))
            arrays[f"{case}/logits"] = sample(logits_of(model, tokens, mask), mask)
            print(case, tokens.shape, int(mask.sum()), model.num_parameters(), json.dumps(config))
    np.savez_compressed(Path(__file__).with_name("logits.npz"), **arrays)


if __name__ == "__main__":
    main()
