"""`mjx import --from megatron`: a checkpoint that Megatron-Core wrote, then used and exported."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from running import mjx

from mjx.models.huggingface import from_pretrained

GOLDENS = Path(__file__).parents[1] / "goldens" / "megatron_checkpoint"
RECIPE = """
model:
  family: gpt
  vocab_size: 27
  num_layers: 4
  hidden_size: 16
  attention: {num_heads: 4, num_query_groups: 2, rope: {}}
  mlp: {features: 24, activation: silu, gated: true}
  norm: {kind: rmsnorm}
  dtype: float32
data:
  tokenizer: TOKENIZER
  corpus: not-read.txt
training:
  steps: 10
"""
GPT2 = (
    *("model.family=gpt", "model.vocab_size=27", "model.num_layers=2", "model.hidden_size=16"),
    *("model.attention={num_heads: 4, qkv_bias: true, output_bias: true}", "model.max_positions=32"),
    *("model.mlp={features: 24, bias: true}", "model.tie_embeddings=true", "model.dtype=float32"),
)


@pytest.fixture
def checkpoint(tmp_path):
    with zipfile.ZipFile(GOLDENS / "llama.zip") as archive:
        archive.extractall(tmp_path / "llama")
    return tmp_path / "llama"


@pytest.fixture
def gpt2(tmp_path):
    """Without the arguments of its run."""
    with zipfile.ZipFile(GOLDENS / "gpt2.zip") as archive:
        archive.extractall(tmp_path / "gpt2")
    return tmp_path / "gpt2"


@pytest.fixture
def recipe(tmp_path):
    letters = {letter: number for number, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}
    (tmp_path / "tokenizer.json").write_text(
        json.dumps(
            {
                "version": "1.0",
                "added_tokens": [],
                "pre_tokenizer": {
                    "type": "Split",
                    "pattern": {"Regex": "."},
                    "behavior": "Isolated",
                    "invert": False,
                },
                "decoder": {"type": "Fuse"},
                "model": {"type": "WordLevel", "vocab": letters, "unk_token": "a"},
            }
        )
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.replace("TOKENIZER", str(tmp_path / "tokenizer.json")))
    return path


def test_an_imported_run_generates_and_its_export_has_megatron_s_logits(checkpoint, recipe, tmp_path):
    run, exported = tmp_path / "run", tmp_path / "exported"
    mesh = ("mesh.tensor=2", "mesh.fsdp=2", "runtime.cpu_devices=4")
    said = mjx("import", checkpoint, run, "--from", "megatron", "--config", recipe, *mesh).stdout
    assert "imported iter_0000100 after 100 steps" in said
    text = mjx(
        "generate", run, "--prompt", "abc", "sampling.max_new_tokens=5", "sampling.temperature=0"
    ).stdout
    assert text.startswith("abc")
    assert len(text.strip()) == 8
    mjx("export", run, exported, "--format", "huggingface")
    with np.load(GOLDENS / "llama.npz") as golden:
        tokens, logits = golden["tokens"], golden["logits"]
    model = from_pretrained(exported, dtype="float32")
    np.testing.assert_allclose(model(tokens), logits, rtol=0, atol=1e-5)
    assert json.loads((exported / "config.json").read_text())["model_type"] == "llama"


def test_a_checkpoint_that_holds_its_arguments_needs_no_recipe(checkpoint, tmp_path):
    run, exported = tmp_path / "run", tmp_path / "exported"
    said = mjx("import", checkpoint, run, "--from", "megatron", "model.vocab_size=27").stdout
    assert "imported iter_0000100 after 100 steps" in said
    mjx("export", run, exported, "--format", "huggingface")
    with np.load(GOLDENS / "llama.npz") as golden:
        tokens, logits = golden["tokens"], golden["logits"]
    np.testing.assert_allclose(from_pretrained(exported, dtype="float32")(tokens), logits, rtol=0, atol=1e-5)


def test_overrides_alone_may_say_the_model(gpt2, tmp_path):
    run, exported = tmp_path / "run", tmp_path / "exported"
    mjx("import", gpt2, run, "--from", "megatron", *GPT2)
    mjx("export", run, exported, "--format", "orbax")
    assert not (run / "tokenizer").exists()
    assert (exported / "config.yaml").read_text().startswith("model:\n  family: gpt\n")


def test_what_cannot_be_imported_leaves_nothing_and_ends_with_2(checkpoint, gpt2, recipe, tmp_path):
    run = tmp_path / "run"
    assert "give --config RECIPE" in mjx("import", gpt2, run, "--from", "megatron", code=2).stderr
    command = ("import", checkpoint, run, "--from", "megatron")
    said = mjx(*command, "--config", recipe, "model.norm.epsilon=1e-6", "model.num_layers=2", code=2).stderr
    assert "num_layers = 4, but model.num_layers asks for 2; norm_epsilon = 1e-05" in said
    (checkpoint / "iter_0000100" / "__2_0.distcp").unlink()
    said = mjx(*command, "--config", recipe, code=2).stderr
    assert "is incomplete: __2_0.distcp" in said
    assert "Traceback" not in said
    said = mjx("import", checkpoint, run, "--config", recipe, code=2).stderr
    assert "--config is for --from megatron" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "gpt2",
        "llama",
        "recipe.yaml",
        "tokenizer.json",
    ]
