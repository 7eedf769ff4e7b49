"""SmolLM2-135M-Instruct, a real model: MJX_SMOLLM2 names its folder (examples/smollm2.md makes one)."""

import json
from pathlib import Path

import numpy as np
import pytest
from running import changed, losses, mjx
from safetensors.numpy import load_file

from mjx.data.tokenizers import load_tokenizer
from mjx.models.huggingface import from_pretrained
from mjx.trees import to_yaml

GOLDENS = Path(__file__).parents[1] / "goldens" / "huggingface"
GOLDEN = json.loads((GOLDENS / "smollm2.json").read_text())


def test_loss_and_logits_on_a_text_are_transformers(smollm2):
    tokens = np.array([load_tokenizer(smollm2).encode((GOLDENS / "smollm2.txt").read_text())])
    assert tokens.shape == (1, GOLDEN["text"]["tokens"])
    logits = np.asarray(from_pretrained(smollm2)(tokens)[0], np.float64)
    log_sum = np.log(np.sum(np.exp(logits - logits.max(-1, keepdims=True)), -1)) + logits.max(-1)
    loss = np.mean(log_sum[:-1] - logits[np.arange(len(logits) - 1), tokens[0, 1:]])
    assert loss == pytest.approx(GOLDEN["text"]["loss"], abs=1e-4)
    expected = GOLDEN["logits"]
    for place, position in enumerate(expected["positions"]):
        row = logits[position]
        assert np.argsort(-row)[:5].tolist() == expected["top5_ids"][place]
        np.testing.assert_allclose(np.sort(row)[:-6:-1], expected["top5"][place], atol=5e-4)
        np.testing.assert_allclose(row[expected["columns"]], expected["values"][place], atol=5e-4)


def test_it_knows_the_capital_of_france(smollm2):
    said = mjx("generate", smollm2, "--prompt", "What is the capital of France?", "sampling.temperature=0")
    assert said.stdout == "The capital of France is Paris.\n"


def test_there_and_back_it_is_the_same_bytes(smollm2, tmp_path):
    mjx("import", smollm2, tmp_path / "run")
    mjx("export", tmp_path / "run", tmp_path / "out", "--format", "huggingface")
    before, after = (load_file(folder / "model.safetensors") for folder in (smollm2, tmp_path / "out"))
    assert before.keys() == after.keys()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)


@pytest.mark.optimized  # its steps take longer than their compilation
def test_ten_steps_of_fine_tuning_lower_the_loss(smollm2, tree, main_here, tmp_path):
    text = (GOLDENS / "smollm2.txt").read_text()
    (tmp_path / "text.txt").write_text("\n\n".join([text] * 4))
    main_here(
        *("data", "build", tmp_path / "text.txt", "--output", tmp_path / "text", "--split-blank-lines"),
        *("--tokenizer", smollm2),
    )
    recipe = changed(
        tree,
        data__tokenizer=None,
        data__sources=[{"path": str(tmp_path / "text")}],
        data__cache_dir=str(tmp_path / "cache"),
        data__sequence_length=64,
        data__split="100,0,0",
        training__steps=10,
        training__batch_size=2,
        training__evaluation_rows=0,
        training__evaluation_interval=None,
        schedule={"learning_rate": 1e-4, "warmup_steps": 2},
        checkpoint={"interval": 10},
        init_from=str(smollm2),
        run_dir=str(tmp_path / "run"),
    )
    del recipe["model"]
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    mjx("train", tmp_path / "recipe.yaml", timeout=600)
    seen = [loss for _, loss in losses(tmp_path / "run")]
    assert len(seen) == 10
    assert np.mean(seen[-3:]) < np.mean(seen[:3]) - 0.5
