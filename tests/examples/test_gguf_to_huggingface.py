"""The script that turns a GGUF file into a Hugging Face folder, on a file of a few kilobytes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mjx.data.tokenizers import ChatTemplate, load_tokenizer

gguf = pytest.importorskip("gguf", reason="the extra mjx[examples] is not installed")

SCRIPT = Path(__file__).parents[2] / "examples" / "gguf_to_huggingface.py"
HEADS, KV_HEADS, HEAD_DIM, WIDTH, FEATURES, LAYERS = 4, 2, 8, 32, 64, 2
TOKENS = ["<|end|>", *(chr(code) for code in range(33, 127)), "Ġ", "Ġa", "ab", "Ġab"]


def weights():
    """Names and shapes of Hugging Face's, which the file has in llama.cpp's order."""
    numbers = np.random.RandomState(0)
    layer = {
        "input_layernorm": (WIDTH,),
        "post_attention_layernorm": (WIDTH,),
        "self_attn.q_proj": (HEADS * HEAD_DIM, WIDTH),
        "self_attn.k_proj": (KV_HEADS * HEAD_DIM, WIDTH),
        "self_attn.v_proj": (KV_HEADS * HEAD_DIM, WIDTH),
        "self_attn.o_proj": (WIDTH, HEADS * HEAD_DIM),
        "mlp.gate_proj": (FEATURES, WIDTH),
        "mlp.up_proj": (FEATURES, WIDTH),
        "mlp.down_proj": (WIDTH, FEATURES),
    }
    shapes = {"model.embed_tokens.weight": (len(TOKENS), WIDTH), "model.norm.weight": (WIDTH,)}
    shapes |= {
        f"model.layers.{i}.{name}.weight": shape for i in range(LAYERS) for name, shape in layer.items()
    }
    return {name: numbers.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "model.layers.": "blk.",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def neighbours(weight, heads):
    """What llama.cpp's own conversion does to queries and keys."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write(file, *, architecture="llama", pre="smollm", extra_tensor=None, scaling=None):
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_block_count(LAYERS)
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEATURES)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(50000.0)
    writer.add_rope_dimension_count(HEAD_DIM)
    if scaling is not None:
        writer.add_rope_scaling_type(scaling)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] + [1] * (len(TOKENS) - 1))
    writer.add_token_merges(["a b", "Ġ ab", "Ġ a"])
    writer.add_eos_token_id(0)
    writer.add_chat_template("{{ messages[0].content }}{{ eos_token }}")
    for name, values in weights().items():
        stored = name
        for theirs, ours in NAMES.items():
            stored = stored.replace(theirs, ours)
        if "q_proj" in name:
            values = neighbours(values, HEADS)
        elif "k_proj" in name:
            values = neighbours(values, KV_HEADS)
        if "gate_proj" in name:  # one in blocks of 32
            blocks = gguf.quantize(values, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(stored, blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(stored, np.ascontiguousarray(values))
    if extra_tensor is not None:
        writer.add_tensor(extra_tensor, np.zeros(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def convert(file, folder):
    return subprocess.run([sys.executable, SCRIPT, file, folder], capture_output=True, text=True)


def test_weights_config_and_tokenizer_are_those_of_the_file(tmp_path):
    folder = tmp_path / "model"
    done = convert(write(tmp_path / "tiny.gguf"), folder)
    assert done.returncode == 0, done.stderr
    found = load_file(folder / "model.safetensors")
    expected = weights()
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        tolerance = 0.02 if "gate_proj" in name else 0.0  # blocks of 8 bits
        np.testing.assert_allclose(found[name], values, rtol=0, atol=tolerance, err_msg=name)
    config = json.loads((folder / "config.json").read_text())
    assert config["rms_norm_eps"] == 1e-5
    assert config["rope_theta"] == 50000.0
    assert (config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]) == (4, 2, 8)
    assert config["tie_word_embeddings"] is True
    assert json.loads((folder / "generation_config.json").read_text()) == {"eos_token_id": 0}
    tokenizer = load_tokenizer(folder)
    assert [TOKENS[token] for token in tokenizer.encode("ab ab  12<|end|>")] == [
        *("ab", "Ġab", "Ġ", "Ġ", "1", "2", "<|end|>")
    ]
    assert tokenizer.eod_id == 0
    template = ChatTemplate.from_folder(folder)
    assert template is not None
    assert template.render([{"role": "user", "content": "x"}]) == "x<|end|>"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"architecture": "mamba"}, "general.architecture = mamba"),
        ({"pre": "unheard"}, "tokenizer.ggml.pre = unheard"),
        ({"extra_tensor": "rope_freqs.weight"}, "a tensor rope_freqs.weight"),
        ({"scaling": gguf.RopeScalingType.YARN}, "sets llama.rope.scaling.type"),
    ],
)
def test_what_would_change_the_model_is_refused_and_nothing_is_written(tmp_path, change, sentence):
    done = convert(write(tmp_path / "tiny.gguf", **change), tmp_path / "model")
    assert done.returncode == 2
    assert sentence in done.stderr
    assert not (tmp_path / "model").exists()


def test_a_file_that_is_missing_cut_or_no_gguf_is_a_sentence(tmp_path):
    (tmp_path / "text.gguf").write_text("no model at all")
    (tmp_path / "cut.gguf").write_bytes(write(tmp_path / "tiny.gguf").read_bytes()[:-1000])
    for name in ("missing.gguf", "text.gguf", "cut.gguf"):
        done = convert(tmp_path / name, tmp_path / "model")
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert name in done.stderr
