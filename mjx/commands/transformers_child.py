"""transformers' side of `mjx verify`: a program of its own, which never loads JAX.

`python -m mjx.commands.transformers_child DIR REQUEST RESULT`; the last two are .npz files. A request has
`tokens` and `mask` (rows padded to one length), `labels` and where they are `counted`, `new_tokens`, and
whether `gradients` are wanted; of an encoder-decoder these are the decoder's, and there are `encoder_tokens`,
`encoder_mask`, and the `start` of its texts; of a model that sees `pixel_values`, of which each row has so
many `pictures`, which are one of `image_sizes`. The result has `logits`, `loss`, `gradient_norm`, each row's
greedy `continuation` with the logits that chose it, and `versions`; or `error`, a sentence for what the user
can mend.
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
        settings = json.load(file)
    quantization = settings.get("quantization_config") or {}
    unpacked = {}
    if quantization.get("quant_method") == "mxfp4":  # to be computed in float32
        packing = transformers.Mxfp4Config  # pyright: ignore[reportAttributeAccessIssue]
        unpacked["quantization_config"] = packing(dequantize=True)
    try:
        kind = "AutoModelForSeq2SeqLM" if "start" in request else "AutoModelForCausalLM"
        kind = "AutoModelForImageTextToText" if "pixel_values" in request else kind
        model = getattr(transformers, kind).from_pretrained(
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
    # BART's bias of the logits is a buffer; others, which nothing differentiates, get no gradient.
    stored = model.state_dict()
    for name, buffer in model.named_buffers():
        if name in stored and buffer.is_floating_point():
            buffer.requires_grad_(bool(request["gradients"]))
    results: dict[str, Any] = _compute(torch, model.float().eval(), request)
    versions = f"transformers {transformers.__version__}, torch {torch.__version__}"
    np.savez(result_file, **{**results, "versions": np.array(versions)})


def _compute(torch, model, request: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    arrays = {name: torch.from_numpy(array) for name, array in request.items() if array.ndim}
    inputs = {"input_ids": arrays["tokens"], "attention_mask": arrays["mask"]}
    if "start" in request:
        inputs = {"input_ids": arrays["encoder_tokens"], "attention_mask": arrays["encoder_mask"]}
        inputs |= {"decoder_input_ids": arrays["tokens"], "decoder_attention_mask": arrays["mask"]}
    seen = _seen(torch, model, arrays) if "pixel_values" in arrays else []
    if seen:
        inputs |= {name: torch.cat([row[name] for row in seen]) for name in seen[0]}
    results: dict[str, np.ndarray] = {}
    with torch.set_grad_enabled(bool(request["gradients"])):
        logits = model(**inputs).logits
        counted = arrays["counted"].bool()
        loss = torch.nn.functional.cross_entropy(logits[counted], arrays["labels"][counted])
    if request["gradients"]:
        loss.backward()
        arrays_of = (*model.parameters(), *model.buffers())
        gradients = [p.grad.double().square().sum() for p in arrays_of if p.grad is not None]
        results["gradient_norm"] = torch.stack(gradients).sum().sqrt().numpy()
    results |= {"logits": logits.detach().numpy(), "loss": loss.detach().numpy()}

    prompts = [
        row[real.bool()] for row, real in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    ]
    start = None if "start" not in request else int(request["start"])
    count = int(request["new_tokens"])
    rows = [
        _continue(torch, model, prompt, count, start, seen[row] if seen else {})
        for row, prompt in enumerate(prompts)
    ]
    results["continuation"] = np.array([chosen for chosen, _ in rows], np.int64)
    results["continuation_logits"] = np.array([logits for _, logits in rows], np.float32)
    return results


def _seen(torch, model, arrays: dict[str, Any]) -> list[dict[str, Any]]:
    """The pictures of each row, as this model takes them."""
    parts = torch.split(arrays["pixel_values"], arrays["pictures"].tolist())
    if not hasattr(model.config, "image_grid_pinpoints"):
        return [{"pixel_values": part} for part in parts]
    sizes = arrays["image_sizes"]
    return [
        {"pixel_values": part, "image_sizes": size[None]} for part, size in zip(parts, sizes, strict=True)
    ]


def _continue(
    torch, model, prompt, count: int, start: int | None, seen: dict[str, Any]
) -> tuple[list[int], list[np.ndarray]]:
    """The most likely tokens one by one, from its cache; `generate` would heed generation_config.json."""
    chosen: list[int] = []
    logits: list[np.ndarray] = []
    with torch.no_grad():
        encoded, name, given, cache = {}, "input_ids", prompt[None], None
        if start is not None:
            encoded = {"encoder_outputs": model.get_encoder()(input_ids=given)}
            name, given = "decoder_input_ids", torch.tensor([[start]])
        for _ in range(count):
            output = model(**{name: given}, **encoded, **seen, past_key_values=cache, use_cache=True)
            seen = {}
            logits.append(output.logits[0, -1].numpy())
            chosen.append(int(logits[-1].argmax()))
            given, cache = torch.tensor([[chosen[-1]]]), output.past_key_values
    return chosen, logits


if __name__ == "__main__":
    main(*sys.argv[1:])
