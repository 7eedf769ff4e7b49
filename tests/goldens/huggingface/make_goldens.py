"""Makes logits.npz with transformers 5: `python make_goldens.py` where torch and transformers are installed.

Per case, named `model_type seed`: its config.json, a fingerprint of its tensors' names and shapes, some of
its logits in float32 (`sample` says which), and of mixtures of experts the loss. Weights and inputs follow
from the seed (variants.py). With `python make_goldens.py mixtral olmoe` the cases of other kinds stay as they
are.
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
from safetensors.numpy import save_file
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
    "mixtral": (16, 19),
    "qwen2_moe": (0, 8),
    "qwen3_moe": (16, 31),
    "gpt_oss": (16, 31),
    "olmoe": (4, 15),
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
        save_file(variants.weights_of(kind, shapes, seed), f"{folder}/model.safetensors", {"format": "pt"})
        return shapes, loaded(folder)


def loaded(folder: str | Path) -> torch.nn.Module:
    """What transformers reads, in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    model.set_experts_implementation("eager")  # grouped products are of aligned sizes only
    return model.eval()


def logits_of(model: torch.nn.Module, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(tokens), attention_mask=torch.from_numpy(mask)).logits.numpy()


def loss_of(model: torch.nn.Module, tokens: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The cross-entropy: without what `output_router_logits` adds."""
    with torch.no_grad():
        out = model(torch.from_numpy(tokens), labels=torch.from_numpy(labels))
    more = getattr(out, "aux_loss", None)
    return (out.loss if more is None else out.loss - model.config.router_aux_loss_coef * more).numpy()


def sample(logits: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """200 of the logits of tokens, from everywhere."""
    told = logits[mask.astype(bool)].reshape(-1)
    return told[np.random.RandomState(0).permutation(told.size)[:200]]


def main() -> None:
    path = Path(__file__).with_name("logits.npz")
    arrays: dict[str, np.ndarray] = {}
    for kind, seeds in CASES.items():
        if sys.argv[1:] and kind not in sys.argv[1:]:
            with np.load(path) as old:
                arrays |= {name: old[name] for name in old if name.split()[0] == kind}
            continue
        for seed in seeds:
            config = variants.config_of(kind, seed)
            shapes, model = theirs_of(kind, seed)
            tokens, mask = variants.inputs_of(config["vocab_size"], seed)
            case = f"{kind} {seed}"
            arrays[f"{case}/config"] = np.array(json.dumps(config))
            arrays[f"{case}/tensors"] = np.array(variants.fingerprint(shapes))
            arrays[f"{case}/logits"] = sample(logits_of(model, tokens, mask), mask)
            if kind in variants.MIXTURES and tokens.shape[1] > 1:
                arrays[f"{case}/loss"] = loss_of(model, tokens, tokens)
            print(case, tokens.shape, int(mask.sum()), model.num_parameters(), json.dumps(config))
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    main()
