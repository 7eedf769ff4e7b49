"""Encoder-decoders that transformers has, and texts that it continues: a config.json for each golden in
encoder_decoders.npz.

`python encoder_decoders.py` makes it, with transformers 5, where torch is installed. Weights and tokens
follow from the names of tensors and the case's number (variants.py).
"""

import importlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

_T5 = {
    **{"vocab_size": 61, "d_model": 32, "d_kv": 6, "d_ff": 40, "num_heads": 4, "num_layers": 3},
    **{"num_decoder_layers": 2, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 9},
    **{"eos_token_id": 1, "pad_token_id": 0, "decoder_start_token_id": 0},
}
_BART = {
    **{"vocab_size": 61, "d_model": 32, "encoder_layers": 2, "decoder_layers": 3, "encoder_ffn_dim": 40},
    **{"decoder_ffn_dim": 40, "encoder_attention_heads": 4, "decoder_attention_heads": 4},
    **{"max_position_embeddings": 24, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1},
    **{"decoder_start_token_id": 2, "forced_eos_token_id": None, "activation_dropout": 0.1},
}
_LLAMA = {
    **{"vocab_size": 61, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "eos_token_id": 1, "pad_token_id": 0},
}
CASES: dict[str, dict[str, Any]] = {
    "t5": _T5,
    "t5, gated": {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "d_kv": 8},
    "t5, gated by SiLU": {**_T5, "feed_forward_proj": "gated-silu", "num_decoder_layers": None},
    "bart": _BART,
    "bart, scaled embeddings": {**_BART, "scale_embedding": True, "activation_function": "relu"},
    "llama": _LLAMA,
}
CLASSES = {
    "t5": "T5ForConditionalGeneration",
    "bart": "BartForConditionalGeneration",
    "llama": "LlamaForCausalLM",
}
NEW_TOKENS = 12
STOPS = (1, 7, 20, 33)
"""Some of them are soon met."""
BEAMS = ((1, 1.0), (2, 1.0), (2, -0.5), (4, 1.0), (4, 2.0), (4, 0.0))
"""How many, and the length penalty."""


def config_of(case: str) -> dict[str, Any]:
    """The config.json."""
    kind = case.partition(",")[0]
    return {**CASES[case], "model_type": kind, "architectures": [CLASSES[kind]]}


def inputs_of(case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, their mask, padded behind; and tokens of the decoder."""
    random = np.random.RandomState(len(case))
    mask = (np.arange(11) < np.array([[11], [4], [7]])).astype(np.int64)
    return random.randint(3, 61, (3, 11)), mask, random.randint(3, 61, (3, 7))


def text_name(case: str, row: int, beams: int, penalty: float) -> str:
    """What a text is called in the goldens; its score has `score/` in front."""
    return f"{case}/row {row}, {beams} beams, penalty {penalty}"


def _texts(model: Any, case: str) -> dict[str, np.ndarray]:
    """Rows by themselves, so that no padding stands in front of a decoder's prompt."""
    import torch

    arrays, (tokens, mask, _) = {}, inputs_of(case)
    for row, length in enumerate(mask.sum(1)):
        prompt = torch.from_numpy(tokens[row : row + 1, :length])
        for beams, penalty in BEAMS:
            made = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=NEW_TOKENS,
                num_beams=beams,
                length_penalty=penalty,
                eos_token_id=list(STOPS),
                do_sample=False,
                return_dict_in_generate=True,
                output_scores=True,
            )
            begun = 1 if model.config.is_encoder_decoder else length
            name = text_name(case, row, beams, penalty)
            arrays[name] = made.sequences[0, begun:].numpy()
            if beams > 1:
                arrays[f"score/{name}"] = made.sequences_scores[0].numpy()
    return arrays


def main() -> None:
    import torch
    import transformers
    from safetensors.numpy import save_file

    variants: Any = importlib.import_module("variants")
    path, arrays = Path(__file__).with_suffix(".npz"), {}
    for number, case in enumerate(CASES):
        config = config_of(case)
        kind = getattr(transformers, config["architectures"][0])
        tokens, mask, decoder_tokens = inputs_of(case)
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "config.json").write_text(json.dumps(config))
            fresh = kind(transformers.AutoConfig.from_pretrained(folder))
            untied = config.get("tie_word_embeddings") is False and case != "llama"
            shapes = {
                name: tuple(each.shape)
                for name, each in fresh.state_dict().items()
                if "embed_tokens" not in name or case == "llama"
                if name != "lm_head.weight" or untied or case == "llama"
            }
            weights = variants.weights_of(config["model_type"], shapes, number)
            save_file(weights, f"{folder}/model.safetensors", {"format": "pt"})
            model = kind.from_pretrained(folder, attn_implementation="eager").float().eval()
            arrays[f"{case}/tensors"] = np.array(variants.fingerprint(shapes))
            arrays |= _texts(model, case)
            if case == "llama":
                continue
            with torch.no_grad():
                made = model(
                    input_ids=torch.from_numpy(tokens),
                    attention_mask=torch.from_numpy(mask),
                    decoder_input_ids=torch.from_numpy(decoder_tokens),
                )
            arrays[f"{case}/logits"] = made.logits.numpy()[:, ::2, ::3]
            arrays[f"{case}/states"] = made.encoder_last_hidden_state.numpy()[:, ::2, ::3]
            print(case, made.logits.std(), len(shapes))
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    main()
