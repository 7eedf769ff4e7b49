"""A Hugging Face folder: used, imported, fine-tuned and written back, from the command line."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from running import WORDS, changed, losses, mjx
from safetensors.numpy import load_file

from mjx.data.tokenizers import train_bpe
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.parameter import parameters_of
from mjx.models.common.rope import RoPEConfig
from mjx.models.gpt import GPTConfig
from mjx.models.huggingface import PretrainedModel, from_pretrained, save_pretrained
from mjx.sharding import MeshConfig, build_mesh
from mjx.trees import to_yaml

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}mesh {% endif %}"
)
TOKENS = np.random.RandomState(0).randint(0, 300, (2, 9))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """A folder as the hub has them: a Llama-like model of bfloat16 tensors, a chat template, a tokenizer with
    a token more than the model has rows."""
    folder = tmp_path_factory.mktemp("hub") / "tiny-model"
    tokenizer = train_bpe((" ".join(WORDS) for _ in range(50)), 300)
    tokenizer.tokenizer.add_special_tokens([f"<image {n}>" for n in range(tokenizer.vocab_size, 301)])
    tokenizer.save(folder.parent / "tokenizer")
    config = GPTConfig(
        num_layers=2,
        hidden_size=32,
        vocab_size=300,
        attention=AttentionConfig(num_heads=4, num_query_groups=2, rope=RoPEConfig()),
        mlp=MLPConfig(features=48, activation="silu", gated=True),
        norm=NormConfig(kind="rmsnorm"),
        init_std=0.2,
        tie_embeddings=True,
    )
    parameters = parameters_of(config.build(nnx.Rngs(0)))
    parameters = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), parameters)
    save_pretrained(
        PretrainedModel(config, parameters),
        folder,
        max_positions=64,
        tokenizer=folder.parent / "tokenizer",
        token_ids={"eos_token_id": 0},
    )
    said = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**said, "chat_template": TEMPLATE}))
    (folder / "generation_config.json").write_text('{"eos_token_id": [0, 7]}\n')
    return folder


@pytest.fixture
def fine_tuning(tree, model_folder, tmp_path) -> Path:
    """A recipe that says no model and no tokenizer."""
    plain = changed(tree, data__tokenizer=None)
    del plain["model"]
    text = "\n\n".join(" ".join(WORDS[i % 7 :]) for i in range(400))
    (tmp_path / "words.txt").write_text(text)
    mjx(
        *("data", "build", tmp_path / "words.txt", "--output", tmp_path / "words", "--split-blank-lines"),
        *("--tokenizer", model_folder),
    )
    plain = changed(
        plain,
        data__sources=[{"path": str(tmp_path / "words")}],
        data__cache_dir=str(tmp_path / "cache"),
        schedule__learning_rate=3e-3,
        init_from=str(model_folder),
        run_dir=str(tmp_path / "run"),
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(to_yaml(plain))
    return path


def test_a_folder_answers_through_its_chat_template_and_continues_raw_prompts(
    model_folder, main_here, capsys
):
    arguments = ("generate", model_folder, "--prompt", "step", "sampling.temperature=0")
    main_here(*arguments)
    answer = capsys.readouterr().out
    main_here("generate", model_folder, "--raw", "--prompt", "<user> step mesh ", "sampling.temperature=0")
    raw = capsys.readouterr().out
    assert raw == f"<user> step mesh {answer}"
    main_here(*arguments, "mesh.tensor=4", "mesh.fsdp=2")
    assert capsys.readouterr().out == answer


def test_an_imported_run_answers_alike_and_exports_the_same_tensors(
    model_folder, main_here, capsys, tmp_path
):
    run, out = tmp_path / "run", tmp_path / "out"
    main_here("import", model_folder, run, "mesh.fsdp=2", "mesh.tensor=4")
    main_here("generate", run, "--prompt", "step", "sampling.temperature=0", "mesh.tensor=2")
    main_here("generate", model_folder, "--prompt", "step", "sampling.temperature=0")
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("imported tiny-model, ")
    assert said[1:-1] == said[-1:]
    main_here("export", run, out, "--format", "huggingface", "--dtype", "bfloat16", "mesh.fsdp=2")
    assert "as a LlamaForCausalLM" in capsys.readouterr().out
    before, after = load_file(model_folder / "model.safetensors"), load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (out / name).read_bytes() == (model_folder / name).read_bytes(), name


def test_two_processes_import_and_export_what_one_does(model_folder, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    pair = ("launch", "-n", 2, "--")
    devices = ("runtime.cpu_devices=2", "mesh.fsdp=2", "mesh.tensor=2")
    mjx(*pair, "import", model_folder, run, *devices)
    mjx(*pair, "export", run, out, "--format", "huggingface", "--dtype", "bfloat16", *devices)
    before, after = load_file(model_folder / "model.safetensors"), load_file(out / "model.safetensors")
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)


def test_fine_tuning_starts_from_the_weights_and_its_export_gives_the_run_s_logits(
    fine_tuning, model_folder, main_here, capsys, caplog, tmp_path
):
    run, out, orbax = tmp_path / "run", tmp_path / "out", tmp_path / "orbax"
    start = shutil.copytree(model_folder, tmp_path / "start")
    recipe = (fine_tuning, f"init_from={start}")
    main_here("train", *recipe, "training.stop_at=10", "mesh.fsdp=2", "mesh.tensor=4")
    assert f"starting from the weights of {start}" in capsys.readouterr().err
    assert "of the data has 301 ids, the model's vocabulary 300: what has one of the rest" in caplog.text
    shutil.rmtree(start)  # a run that has begun does without
    main_here("train", *recipe)
    seen = losses(run)
    assert [step for step, _ in seen] == list(range(1, 21))
    assert seen[-1][1] < 0.7 * seen[0][1]

    main_here("export", run, out, "--format", "huggingface")
    main_here("export", run, orbax)
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "float32"
    assert json.loads((out / "tokenizer_config.json").read_text())["chat_template"] == TEMPLATE
    exported = from_pretrained(out)
    assert not np.array_equal(exported(TOKENS), from_pretrained(model_folder)(TOKENS))
    # The run itself as the beginning of another: the same weights.
    main_here(
        *("train", fine_tuning, f"init_from={run}", f"run_dir={tmp_path / 'next'}"),
        *("training.steps=1", "schedule.learning_rate=0.0", "schedule.warmup_steps=0"),
    )
    main_here("export", tmp_path / "next", tmp_path / "again", "--format", "huggingface")
    again = from_pretrained(tmp_path / "again", mesh=build_mesh(MeshConfig(fsdp=2, tensor=4)))
    np.testing.assert_allclose(again(TOKENS), exported(TOKENS), atol=1e-5)


def test_a_model_of_another_recipe_is_written_as_the_first_architecture_that_holds_it(
    undisturbed, main_here, capsys, tmp_path, refused
):
    said = refused("export", undisturbed, tmp_path / "out", "--format", "huggingface")
    assert said.startswith("no Hugging Face architecture that mjx knows can hold this model; the nearest, ")
    assert not (tmp_path / "out").exists()


def test_another_architecture_is_written_where_it_can_hold_the_model(
    model_folder, main_here, refused, tmp_path
):
    main_here("import", model_folder, tmp_path / "run")
    export = ("export", tmp_path / "run", tmp_path / "out", "--format", "huggingface", "--architecture")
    assert refused(*export, "qwen3").startswith(
        "the Hugging Face architecture qwen3 cannot hold this model: it has no model.attention.qk_norm"
    )
    main_here(*export, "mistral")
    said = json.loads((tmp_path / "out" / "config.json").read_text())
    assert said["architectures"] == ["MistralForCausalLM"]
    assert (said["max_position_embeddings"], said["sliding_window"]) == (64, None)
    np.testing.assert_allclose(
        from_pretrained(tmp_path / "out")(TOKENS), from_pretrained(model_folder)(TOKENS), atol=1e-5
    )


REFUSED_RECIPES = {
    "another size": (["model.num_layers=3"], "model.num_layers = 3 differs from the model of init_from"),
    "a preset": (["model.preset=llama3-8b"], "model.preset = llama3-8b and init_from"),
    "another family": (["model.family=bert"], "model.family is not gpt"),
    "nothing there": (["init_from=no/where"], "There is no folder no/where; mjx reads local folders"),
}


@pytest.mark.parametrize("name", REFUSED_RECIPES)
def test_a_recipe_that_does_not_fit_its_beginning_is_refused(name, fine_tuning, refused, tmp_path):
    overrides, sentence = REFUSED_RECIPES[name]
    assert refused("train", fine_tuning, *overrides).startswith(sentence)
    assert not (tmp_path / "run").exists()


def test_training_s_own_choices_may_differ_from_the_weights_beginning(fine_tuning, main_here, capsys):
    main_here("train", fine_tuning, "model.dropout=0.1", "model.remat=full", "--print-config")
    printed = capsys.readouterr().out
    assert "remat: full" in printed
    assert "num_layers: 2" in printed


@pytest.fixture
def copy(model_folder, tmp_path) -> Path:
    """A folder to be damaged."""
    return Path(shutil.copytree(model_folder, tmp_path / "copy"))


def change_config(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def damage(folder: Path, kind: str) -> None:
    weights = folder / "model.safetensors"
    if kind == "truncated":
        weights.write_bytes(weights.read_bytes()[:-5])
    if kind == "unsupported":
        change_config(folder, rope_scaling={"rope_type": "dynamic", "factor": 2.0})
    if kind == "unknown":
        change_config(folder, residual_multiplier=0.5)
    if kind == "missing shard":
        index = {
            "metadata": {},
            "weight_map": dict.fromkeys(load_file(weights), "model-00001-of-00002.safetensors"),
        }
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        weights.unlink()
    if kind == "outside":
        index = {"metadata": {}, "weight_map": dict.fromkeys(load_file(weights), "../other.safetensors")}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        weights.rename(folder.parent / "other.safetensors")
    if kind == "pickle":
        weights.rename(folder / "pytorch_model.bin")


DAMAGES = {
    "truncated": "model.safetensors",
    "unsupported": '"rope_type": "dynamic"',
    "unknown": '"residual_multiplier": 0.5',
    "missing shard": "model-00001-of-00002.safetensors",
    "outside": "../other.safetensors",
    "pickle": "pickle",
}


def test_an_import_into_a_folder_that_is_not_empty_is_refused_before_a_weight_is_read(
    copy, refused, tmp_path, monkeypatch
):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").write_text("kept")
    monkeypatch.setattr("mjx.commands.import_model.open_model", None)
    assert "exists and is not an empty folder" in refused("import", copy, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine"]


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_folder_is_refused_in_one_sentence_and_nothing_is_written(kind, copy, refused, tmp_path):
    damage(copy, kind)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert DAMAGES[kind] in refused("import", copy, tmp_path / "run")
    assert DAMAGES[kind] in refused("generate", copy, "--prompt", "mesh")
    assert sorted(path.name for path in tmp_path.iterdir()) == before
