"""Turns a GGUF file of a Llama into a Hugging Face folder.

    pip install 'mjx[examples]'
    python examples/gguf_to_huggingface.py FILE.gguf DIR

DIR gets config.json, generation_config.json, model.safetensors (float32: what llama.cpp's blocks stand for
fits no smaller type exactly), tokenizer.json and tokenizer_config.json with the chat template. Neither torch
nor transformers is needed.

Read are files of the architecture `llama` with a byte-level BPE; anything else in the file that would change
the model is refused by name.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import tokenizers
from safetensors.numpy import save_file
from tokenizers import decoders, models, pre_tokenizers

TENSORS = {
    r"token_embd\.weight": "model.embed_tokens.weight",
    r"output_norm\.weight": "model.norm.weight",
    r"output\.weight": "lm_head.weight",
    r"blk\.(\d+)\.attn_norm\.weight": r"model.layers.\1.input_layernorm.weight",
    r"blk\.(\d+)\.attn_q\.weight": r"model.layers.\1.self_attn.q_proj.weight",
    r"blk\.(\d+)\.attn_k\.weight": r"model.layers.\1.self_attn.k_proj.weight",
    r"blk\.(\d+)\.attn_v\.weight": r"model.layers.\1.self_attn.v_proj.weight",
    r"blk\.(\d+)\.attn_output\.weight": r"model.layers.\1.self_attn.o_proj.weight",
    r"blk\.(\d+)\.ffn_norm\.weight": r"model.layers.\1.post_attention_layernorm.weight",
    r"blk\.(\d+)\.ffn_gate\.weight": r"model.layers.\1.mlp.gate_proj.weight",
    r"blk\.(\d+)\.ffn_up\.weight": r"model.layers.\1.mlp.up_proj.weight",
    r"blk\.(\d+)\.ffn_down\.weight": r"model.layers.\1.mlp.down_proj.weight",
}
"""GGUF's names → those of Hugging Face's Llama."""

BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False)
PRE_TOKENIZERS = {
    "default": BYTE_LEVEL,
    "gpt-2": BYTE_LEVEL,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTE_LEVEL]),
}
"""`tokenizer.ggml.pre` → how text is cut before the merges."""

CONTROL, USER_DEFINED = 3, 4
"""Values of `tokenizer.ggml.token_type`: special tokens, and words that are matched before the merges."""


class UnreadableFile(ValueError):  # noqa: N818
    """The file holds something that this script would translate wrongly."""


class Metadata:
    """The key-value pairs of a GGUF file."""

    def __init__(self, reader: gguf.GGUFReader) -> None:
        self._values = {name: field.contents() for name, field in reader.fields.items()}

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            raise UnreadableFile(f"The file has no {name}.")
        return self._values[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self._values.get(name, default)

    def names(self, prefix: str) -> list[str]:
        return [name for name in self._values if name.startswith(prefix)]


def model_config(metadata: Metadata, tied: bool) -> dict[str, Any]:
    """config.json."""
    if metadata["general.architecture"] != "llama":
        raise UnreadableFile(
            f"general.architecture = {metadata['general.architecture']}; this script reads llama."
        )
    for prefix in ("llama.rope.scaling.", "llama.expert_", "llama.attention.sliding_window"):
        if names := metadata.names(prefix):
            raise UnreadableFile(f"The file sets {names[0]}, which this script does not translate.")
    heads, hidden_size = metadata["llama.attention.head_count"], metadata["llama.embedding_length"]
    head_dim = metadata.get("llama.attention.key_length", hidden_size // heads)
    if metadata.get("llama.rope.dimension_count", head_dim) != head_dim:
        raise UnreadableFile(
            f"llama.rope.dimension_count = {metadata['llama.rope.dimension_count']} rotates only a part of "
            f"the {head_dim} channels of a head."
        )
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden_size,
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_hidden_layers": metadata["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.get("llama.attention.head_count_kv", heads),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rms_norm_eps": shortest(metadata["llama.attention.layer_norm_rms_epsilon"]),
        "rope_theta": shortest(metadata.get("llama.rope.freq_base", 10000.0)),
        "max_position_embeddings": metadata["llama.context_length"],
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "tie_word_embeddings": tied,
        **special_ids(metadata),
        "torch_dtype": "float32",
    }


def special_ids(metadata: Metadata) -> dict[str, int]:
    names = {
        "bos_token_id": "bos_token_id",
        "eos_token_id": "eos_token_id",
        "padding_token_id": "pad_token_id",
    }
    ids = {ours: metadata.get(f"tokenizer.ggml.{name}") for name, ours in names.items()}
    return {name: token for name, token in ids.items() if token is not None}


def shortest(value: float) -> float:
    """The decimal that was meant: GGUF has 1e-05 as a float32, which is 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def model_tensors(reader: gguf.GGUFReader, heads: int, kv_heads: int) -> dict[str, np.ndarray]:
    """model.safetensors: float32, with the channels of queries and keys in Hugging Face's order."""
    tensors = {}
    for tensor in reader.tensors:
        row = next((pattern for pattern in TENSORS if re.fullmatch(pattern, tensor.name)), None)
        if row is None:
            raise UnreadableFile(
                f"The file has a tensor {tensor.name}, which this script does not translate."
            )
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        if ".attn_q." in tensor.name:
            values = halves(values, heads)
        elif ".attn_k." in tensor.name:
            values = halves(values, kv_heads)
        tensors[re.sub(row, TENSORS[row], tensor.name)] = np.ascontiguousarray(values)
    return tensors


def halves(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp rotates neighbouring channels, (0, 1), (2, 3), ..., Hugging Face those half a head apart."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def bpe_tokenizer(metadata: Metadata) -> tokenizers.Tokenizer:
    """tokenizer.json."""
    kind, pre = metadata["tokenizer.ggml.model"], metadata.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2":
        raise UnreadableFile(f"tokenizer.ggml.model = {kind}; this script reads byte-level BPE, gpt2.")
    if pre not in PRE_TOKENIZERS:
        raise UnreadableFile(f"tokenizer.ggml.pre = {pre}; this script knows {', '.join(PRE_TOKENIZERS)}.")
    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges)
    )
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[pre]
    tokenizer.decoder = decoders.ByteLevel()
    types = metadata["tokenizer.ggml.token_type"]
    for token, type_ in zip(tokens, types, strict=True):
        if type_ == CONTROL:
            tokenizer.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False)])
        elif type_ == USER_DEFINED:
            tokenizer.add_tokens([tokenizers.AddedToken(token, normalized=False)])
    return tokenizer


def tokenizer_config(metadata: Metadata) -> dict[str, Any]:
    """tokenizer_config.json."""
    tokens = metadata["tokenizer.ggml.tokens"]
    names = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
    ids = {ours: metadata.get(f"tokenizer.ggml.{name}_token_id") for name, ours in names.items()}
    template = metadata.get("tokenizer.chat_template")
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": metadata["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        "add_bos_token": bool(metadata.get("tokenizer.ggml.add_bos_token", False)),
        "add_eos_token": bool(metadata.get("tokenizer.ggml.add_eos_token", False)),
        **{name: tokens[token] for name, token in ids.items() if token is not None},
        **({} if template is None else {"chat_template": template}),
    }


def convert(file: Path, folder: Path) -> None:
    """Writes the folder; nothing is written of a file that cannot be read to its end."""
    try:
        reader = gguf.GGUFReader(file)
    except ValueError as error:
        raise UnreadableFile(f"{file} is not a whole GGUF file: {error}.") from error
    metadata = Metadata(reader)
    tied = all(tensor.name != "output.weight" for tensor in reader.tensors)
    config = model_config(metadata, tied)
    tokenizer = bpe_tokenizer(metadata)
    tensors = model_tensors(reader, config["num_attention_heads"], config["num_key_value_heads"])
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    texts = {
        "config.json": config,
        "generation_config.json": special_ids(metadata),
        "tokenizer_config.json": tokenizer_config(metadata),
    }
    for name, content in texts.items():
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    count = sum(values.size for values in tensors.values())
    print(f"{folder}: {len(tensors)} tensors, {count:,} parameters, {tokenizer.get_vocab_size():,} tokens")


def main() -> int:
    parser = argparse.ArgumentParser(description="Turns a GGUF file of a Llama into a Hugging Face folder.")
    parser.add_argument("file", type=Path, metavar="FILE.gguf")
    parser.add_argument("folder", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    try:
        convert(arguments.file, arguments.folder)
    except (UnreadableFile, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
