"""Models as they are published: with names of tokens that nothing uses."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from safetensors.numpy import load_file, save_file

from mjx.data.tokenizers import load_tokenizer, train_bpe
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.parameter import parameters_of
from mjx.models.common.rope import RoPEConfig
from mjx.models.family import abstract_model
from mjx.models.gpt import GPTConfig
from mjx.models.huggingface import PretrainedModel, from_pretrained, save_pretrained

IMAGE = "<image_soft_token>"


@pytest.fixture(scope="module")
def tidy(tmp_path_factory) -> Path:
    """A model of 300 tokens whose files say nothing too much."""
    folder = tmp_path_factory.mktemp("hub")
    train_bpe((f"the quick brown fox jumps {n}" for n in range(50)), 300).save(folder / "tokenizer")
    config = GPTConfig(
        num_layers=1,
        hidden_size=16,
        vocab_size=load_tokenizer(folder / "tokenizer").vocab_size,
        attention=AttentionConfig(num_heads=2, rope=RoPEConfig()),
        mlp=MLPConfig(features=24, activation="silu", gated=True),
        norm=NormConfig(kind="rmsnorm"),
    )
    random = np.random.RandomState(0)
    parameters = jax.tree.map(
        lambda leaf: jnp.asarray(random.randn(*leaf.shape), leaf.dtype), parameters_of(abstract_model(config))
    )
    model = PretrainedModel(config, parameters)
    save_pretrained(
        model,
        folder / "model",
        max_positions=64,
        tokenizer=folder / "tokenizer",
        token_ids={"eos_token_id": 0},
    )
    return folder / "model"


@pytest.fixture
def model(tidy, tmp_path) -> Path:
    return Path(shutil.copytree(tidy, tmp_path / "model"))


@pytest.fixture
def with_image(model) -> Path:
    """Its tokenizer has one token more than its table has rows."""
    tokenizer = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.add_special_tokens([tokenizers.AddedToken(IMAGE, special=True)])
    tokenizer.save(str(model / "tokenizer.json"))
    return model


def say_of_tokenizer(folder: Path, **settings: object) -> None:
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def test_what_is_named_and_never_written_is_warned_of(
    with_image, main_here, refused, capsys, caplog, tmp_path
):
    say_of_tokenizer(with_image, pad_token="[PAD]", bos_token="<nowhere>", add_bos_token=True)
    (with_image / "generation_config.json").write_text('{"eos_token_id": ["</s>", 0, null]}')
    rows = from_pretrained(with_image).config.vocab_size
    generate = ("generate", with_image, "sampling.max_new_tokens=4", "sampling.temperature=0", "--prompt")
    main_here(*generate, "the fox")
    assert capsys.readouterr().out.startswith("the fox")
    assert f"has {rows + 1} ids, the model's vocabulary {rows}" in caplog.text
    assert f'what has one of the rest ({rows} "{IMAGE}") is refused' in caplog.text
    assert 'pad_token = "[PAD]" is not in the vocabulary' in caplog.text
    assert 'bos_token = "<nowhere>" is not in the vocabulary' in caplog.text
    assert "only [0] are token ids" in caplog.text
    assert refused(*generate, f"the {IMAGE} fox").startswith(f"prompt 0 has the token id {rows}; the model's")


def test_a_missing_end_of_document_is_refused_where_it_is_asked_for(model, main_here, refused, tmp_path):
    say_of_tokenizer(model, eos_token="</nowhere>")
    (tmp_path / "text.txt").write_text("the quick brown fox")
    build = ("data", "build", tmp_path / "text.txt", "--output", tmp_path / "x", "--tokenizer", model)
    said = refused(*build)
    assert said.startswith("the tokenizer has no end-of-document token")
    assert "--no-eod" in said
    main_here(*build, "--no-eod")


def test_a_model_whose_tokenizer_cannot_be_read_is_imported_without(model, main_here, caplog, tmp_path):
    (model / "tokenizer.json").rename(model / "tekken.json")
    main_here("import", model, tmp_path / "run")
    assert "the run will have no tokenizer: " in caplog.text
    assert not (tmp_path / "run" / "tokenizer").exists()
    assert (tmp_path / "run" / "huggingface" / "tekken.json").exists()


def test_an_export_has_neither_numbers_nor_token_ids_that_its_reader_cannot_take(
    with_image, main_here, refused, tmp_path
):
    name, file = "model.layers.0.mlp.down_proj.weight", with_image / "model.safetensors"
    tensors = load_file(file)
    tensors[name][1, 2] = -1e6
    save_file(tensors, file, {"format": "pt"})
    main_here("import", with_image, tmp_path / "run")
    say_of_tokenizer(tmp_path / "run" / "tokenizer", pad_token=IMAGE)
    shutil.rmtree(tmp_path / "run" / "huggingface")  # as of a run that began with none

    export = ("export", tmp_path / "run", tmp_path / "out", "--format", "huggingface", "--dtype", "float16")
    size = tensors[name].size
    assert refused(*export).startswith(
        f"{name} has 1 of {size} numbers beyond float16, whose largest is 65504; they go up to 1e+06"
    )
    assert not (tmp_path / "out").exists()
    main_here(*export, "--clip")
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert written[name][1, 2] == -65504
    assert all(np.isfinite(tensor).all() for tensor in written.values())
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    # transformers makes no table whose padding has no row.
    assert (config["eos_token_id"], config["pad_token_id"]) == (0, None)

    for option in (("--dtype", "bfloat16"), ("--architecture", "llama"), ("--clip",)):
        said = refused("export", tmp_path / "run", tmp_path / "orbax", *option)
        assert said.startswith(f"{option[0]} is for --format huggingface")
