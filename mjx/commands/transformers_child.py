"""transformers' side of `mjx verify`: a program of its own, which never loads JAX.

`python -m mjx.commands.transformers_child DIR REQUEST RESULT`; the last two are .npz files. A request has
`tokens` and `mask` (rows padded to one length), `new_tokens`, and whether `gradients` are wanted. The result
has `logits`, `loss`, `gradient_norm`, each row's greedy `continuation` with the logits that chose it, and
`versions`; or `error`, a sentence for what the user can mend.
"""

import json
import os
import sys
from typing import Any

import numpy as np


def main(folder: str, request_file: str, result_file: str) -> None:
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    with np.load(request_file) as file:
        request = dict(file)
    try:
        import torch  # pyright: ignore[reportMissingImports]
        import transformers  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        sentence = f"{error}: mjx verify needs torch and transformers (pip install 'mjx[parity]')"
        np.savez(result_file, error=np.array(sentence))
        return
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        quantization = json.load(file).get("quantization_config") or {}
    unpacked = {}
    if quantization.get("quant_method") == "mxfp4":  # to be computed in float32
        packing = transformers.Mxfp4Config  # pyright: ignore[reportAttributeAccessIssue]
        unpacked["quantization_config"] = packing(dequantize=True)
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, attn_implementation="eager", dtype=torch.float32, local_files_only=True, **unpacked
        )
    except (ValueError, KeyError, OSError) as error:
        np.savez(result_file, error=np.array(f"transformers cannot load {folder}: {error}"))
        return
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")  # grouped products are of aligned sizes only
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            module.padding_idx = None  # it leaves one token's gradient out, wherever the token stands
    results: dict[str, Any] = _compute(torch, model.float().eval(), request)
    versions = f"transformers {transformers.__version__}, torch {torch.__version__}"
    np.savez(result_file, **{**results, "versions": np.array(versions)})


def _compute(torch, model, request: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    tokens, mask = (torch.from_numpy(request[name]) for name in ("tokens", "mask"))
    results: dict[str, np.ndarray] = {}
    with torch.set_grad_enabled(bool(request["gradients"])):
        logits = model(input_ids=tokens, attention_mask=mask).logits
        # Of every token that a token precedes: theirs would count what stands after padding as well.
        counted = (mask[:, 1:] * mask[:, :-1]).bool()
        loss = torch.nn.functional.cross_entropy(logits[:, :-1][counted], tokens[:, 1:][counted])
    if request["gradients"]:
        loss.backward()
        gradients = [p.grad.double().square().sum() for p in model.parameters() if p.grad is not None]
        results["gradient_norm"] = torch.stack(gradients).sum().sqrt().numpy()
    results |= {"logits": logits.detach().numpy(), "loss": loss.detach().numpy()}

    rows = [
        _continue(torch, model, row[real.bool()], int(request["new_tokens"]))
        for row, real in zip(tokens, mask, strict=True)
    ]
    results["continuation"] = np.array([chosen for chosen, _ in rows], np.int64)
    results["continuation_logits"] = np.array([logits for _, logits in rows], np.float32)
    return results


def _continue(torch, model, prompt, count: int) -> tuple[list[int], list[np.ndarray]]:
    """The most likely tokens one by one, from its cache; `generate` would heed generation_config.json."""
    chosen: list[int] = []
    logits: list[np.ndarray] = []
    given, cache = prompt[None], None
    with torch.no_grad():
        for _ in range(count):
            output = model(input_ids=given, past_key_values=cache, use_cache=True)
            logits.append(output.logits[0, -1].numpy())
            chosen.append(int(logits[-1].argmax()))
            given, cache = torch.tensor([[chosen[-1]]]), output.past_key_values
    return chosen, logits


if __name__ == "__main__":
    main(*sys.argv[1:])
