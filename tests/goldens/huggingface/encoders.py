"""Encoders that transformers has: config.json, inputs and outputs of each case in encoders.npz.

`python encoders.py` makes it, with transformers 5, where torch is installed. Weights and inputs follow from
the names of tensors and the case's number (variants.py).
"""

import importlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

_SIZES = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_BERT = {**_SIZES, "model_type": "bert", "intermediate_size": 48, "max_position_embeddings": 20}
_ROBERTA = {
    **_BERT,
    **{"model_type": "roberta", "type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5},
}
_MODERN = {
    **_SIZES,
    **{"model_type": "modernbert", "intermediate_size": 24, "num_hidden_layers": 4, "local_attention": 6},
    **{"max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3},
    **{"cls_token_id": 2, "sep_token_id": 3},
}
_THREE = {"id2label": {"0": "no", "1": "perhaps", "2": "yes"}, "label2id": {"no": 0, "perhaps": 1, "yes": 2}}
_NUMBER = {"id2label": {"0": "score"}, "label2id": {"score": 0}}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "pre-training": ("BertForPreTraining", {**_BERT, "hidden_act": "gelu_new"}),
    "hidden tokens": ("BertForMaskedLM", {**_BERT, "layer_norm_eps": 1e-3}),
    "states": ("BertModel", _BERT),
    "classes": ("BertForSequenceClassification", {**_BERT, **_THREE}),
    "a number": ("BertForSequenceClassification", {**_BERT, **_NUMBER, "type_vocab_size": 3}),
    "roberta": ("RobertaForMaskedLM", _ROBERTA),
    "roberta, states": ("RobertaModel", {**_ROBERTA, "hidden_act": "relu"}),
    "roberta, classes": ("RobertaForSequenceClassification", {**_ROBERTA, **_THREE}),
    "modernbert": ("ModernBertForMaskedLM", _MODERN),
    "modernbert, biases": (
        "ModernBertForMaskedLM",
        {
            **_MODERN,
            **{"norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True},
            **{"decoder_bias": False, "global_attn_every_n_layers": 2, "norm_eps": 1e-3},
            **{"global_rope_theta": 500.0, "local_rope_theta": 50.0, "classifier_activation": "silu"},
            **{"hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": False},
        },
    ),
    "modernbert, states": ("ModernBertModel", {**_MODERN, "layer_types": ["full_attention"] * 4}),
    "modernbert, classes": ("ModernBertForSequenceClassification", {**_MODERN, **_THREE}),
    "modernbert, a number of the mean": (
        "ModernBertForSequenceClassification",
        {
            **_MODERN,
            **_NUMBER,
            **{"classifier_pooling": "mean", "classifier_bias": True, "classifier_activation": "relu"},
        },
    ),
}
"""Between them every class, and every option of a config.json that its outputs depend on."""


def config_of(case: str) -> dict[str, Any]:
    """The config.json."""
    name, config = CASES[case]
    return {**config, "architectures": [name]}


def inputs_of(case: str) -> dict[str, np.ndarray]:
    """By transformers' names: a whole row, and rows that are padded behind and (RoBERTa) in front."""
    name, config = CASES[case]
    random = np.random.RandomState(len(case))
    tokens, mask = random.randint(5, 61, (3, 15)), np.ones((3, 15), np.int64)
    mask[1, 9:] = 0
    if case == "roberta":  # the pooler's first token is padding there
        mask[2, :4] = 0
    tokens[mask == 0] = config.get("pad_token_id", 0)
    inputs = {"input_ids": tokens, "attention_mask": mask}
    types = config.get("type_vocab_size", 2)
    if config["model_type"] != "modernbert":
        inputs["token_type_ids"] = np.arange(15) // 6 % types * mask
    labels = np.where(random.rand(3, 15) < 0.4, random.randint(5, 61, (3, 15)), -100)
    if "Sequence" in name:
        number = "score" in config["label2id"]
        inputs["labels"] = np.array([0.5, -1.5, 2.0], np.float32) if number else np.array([2, 0, 1])
    elif not name.endswith("Model"):
        inputs["labels"] = np.where(mask, labels, -100)
    if name == "BertForPreTraining":
        inputs["next_sentence_label"] = np.array([1, 0, 1])
    return inputs


def main() -> None:
    import torch
    import transformers
    from safetensors.numpy import load_file, save_file

    variants: Any = importlib.import_module("variants")
    arrays = {}
    for number, case in enumerate(CASES):
        config, model_class = config_of(case), getattr(transformers, CASES[case][0])
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "config.json").write_text(json.dumps(config))
            fresh = model_class._from_config(transformers.AutoConfig.from_pretrained(folder))
            fresh.save_pretrained(folder)
            shapes = {name: each.shape for name, each in load_file(f"{folder}/model.safetensors").items()}
            weights = variants.weights_of(config["model_type"], shapes, number)
            save_file(weights, f"{folder}/model.safetensors", {"format": "pt"})
            Path(folder, "config.json").write_text(json.dumps(config))
            model = model_class.from_pretrained(folder, attn_implementation="eager").float().eval()
        inputs = {name: torch.from_numpy(array) for name, array in inputs_of(case).items()}
        with torch.no_grad():
            outputs = model(**inputs)
        for name, array in outputs.items():
            arrays[f"{case}/{name}"] = array.numpy()
        arrays[f"{case}/tensors"] = np.array(variants.fingerprint(shapes))
        print(case, {name: float(array.std(correction=0)) for name, array in outputs.items()})
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **arrays)


if __name__ == "__main__":
    main()
