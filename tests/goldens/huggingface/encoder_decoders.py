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
    "mt5": {**_T5, "tie_word_embeddings": False, "d_kv": 8},
    "mt5, without a head": {**_T5, "feed_forward_proj": "gated-silu", "tie_word_embeddings": False},
    "t5, gated, without a head": {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "bart, without a bias of logits": _BART,
}
LACKING = {
    "mt5, without a head": "lm_head.weight",
    "t5, gated, without a head": "lm_head.weight",
    "bart, without a bias of logits": "final_logits_bias",
}
"""Tensors that their files do not have, though the model does."""
CLASSES = {
    "t5": "T5ForConditionalGeneration",
    "mt5": "MT5ForConditionalGeneration",
    "bart": "BartForConditionalGeneration",
    "llama": "LlamaForCausalLM",
}
NEW_TOKENS = 12
STOPS = (1, 7, 20, 33)
"""Some of them are soon met."""
BEAMS = ((1, 1.0), (2, 1.0), (2, -0.5), (4, 1.0), (4, 2.0), (4, 0.0))
"""How many, and the length penalty."""
CONSTRAINED = (
    *({"no_repeat_ngram_size": size, "num_beams": beams} for size, beams in ((1, 1), (2, 1), (2, 4), (3, 2))),
    *({"min_new_tokens": 8, "num_beams": beams} for beams in (1, 4)),
    *({"min_length": 9, "num_beams": beams} for beams in (1, 2)),
    {"forced_bos_token_id": 5, "num_beams": 1},
    {"forced_bos_token_id": 5, "forced_eos_token_id": 33, "num_beams": 3},
    {"forced_eos_token_id": 33, "min_new_tokens": 4, "no_repeat_ngram_size": 2, "num_beams": 3},
    *({"early_stopping": True, "length_penalty": penalty, "num_beams": 4} for penalty in (1.0, 2.0)),
    *({"early_stopping": "never", "length_penalty": penalty, "num_beams": 3} for penalty in (-1.0, 2.0)),
)
"""What texts must have and must not, and when a search ends: options of `generate`."""
CONSTRAINED_CASES = ("t5", "bart", "llama")


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


def labels_of(case: str) -> np.ndarray:
    """The decoder's tokens, some of which do not count."""
    _, _, tokens = inputs_of(case)
    return np.where(np.arange(7) < np.array([[5], [7], [2]]), tokens, -100)


def constrained_name(case: str, row: int, options: dict[str, Any]) -> str:
    """As `text_name`."""
    said = ", ".join(f"{name} = {value}" for name, value in options.items())
    return f"{case}/row {row}, {said}"


def _texts(model: Any, case: str) -> dict[str, np.ndarray]:
    """Rows by themselves, so that no padding stands in front of a decoder's prompt."""
    import torch

    arrays, (tokens, mask, _) = {}, inputs_of(case)
    for row, length in enumerate(mask.sum(1)):
        prompt = torch.from_numpy(tokens[row : row + 1, :length])
        asked = {
            text_name(case, row, beams, penalty): {"num_beams": beams, "length_penalty": penalty}
            for beams, penalty in BEAMS
        }
        if case in CONSTRAINED_CASES:
            asked |= {constrained_name(case, row, options): options for options in CONSTRAINED}
        for name, options in asked.items():
            made = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=NEW_TOKENS,
                eos_token_id=list(STOPS),
                do_sample=False,
                return_dict_in_generate=True,
                output_scores=True,
                **options,
            )
            begun = 1 if model.config.is_encoder_decoder else length
            arrays[name] = made.sequences[0, begun:].numpy()
            if options["num_beams"] > 1:
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
                if name != LACKING.get(case)
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
                of_labels = model(
                    input_ids=torch.from_numpy(tokens),
                    attention_mask=torch.from_numpy(mask),
                    labels=torch.from_numpy(labels_of(case)),
                )
            arrays[f"{case}/loss"] = of_labels.loss.numpy()
            arrays[f"{case}/logits of labels"] = of_labels.logits.numpy()[:, ::2, ::3]
            arrays[f"{case}/logits"] = made.logits.numpy()[:, ::2, ::3]
            arrays[f"{case}/states"] = made.encoder_last_hidden_state.numpy()[:, ::2, ::3]
            print(case, made.logits.std(), len(shapes))
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    main()
