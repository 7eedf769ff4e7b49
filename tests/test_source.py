"""Where a model comes from: a run's folder, one of Hugging Face, both, neither."""

import json

import pytest

from mjx.errors import InputError
from mjx.source import HuggingFaceSource, RunSource, fill_in, keep_companions, open_source
from mjx.trees import to_yaml

MODEL = {"family": "gpt", "num_layers": 2, "hidden_size": 32, "vocab_size": 300}
CONFIG = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 300,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(to_yaml({"model": MODEL, "seed": 3}))
    return folder


@pytest.fixture
def downloaded(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_text("weights")
    return folder


def test_a_run_gives_its_recipe(run):
    source = open_source(run)
    assert isinstance(source, RunSource)
    assert source.recipe() == {"model": MODEL, "seed": 3}
    assert (source.has_tokenizer, source.companions) == (False, None)
    with pytest.raises(InputError, match=f"{run} has no checkpoint yet"):
        source.load(None, {})  # type: ignore[arg-type]


def test_a_hugging_face_folder_gives_its_model_and_has_no_steps(downloaded):
    source = open_source(str(downloaded))
    assert isinstance(source, HuggingFaceSource)
    recipe = source.recipe()
    assert list(recipe) == ["model"]
    assert recipe["model"]["family"] == "gpt"
    assert recipe["model"]["num_layers"] == 2
    assert source.has_tokenizer
    with pytest.raises(InputError, match=f"--step 3: {downloaded} is a Hugging Face folder"):
        source.load(None, {}, step=3)  # type: ignore[arg-type]


def test_a_folder_that_is_both_is_a_run(run, downloaded):
    (run / "config.json").write_text(json.dumps(CONFIG))
    assert isinstance(open_source(run), RunSource)


def test_a_folder_that_is_neither_or_missing_is_told(tmp_path):
    with pytest.raises(InputError, match=r"holds no config\.json, .* Nor is it a run folder"):
        open_source(tmp_path)
    with pytest.raises(InputError, match=f"There is no folder {tmp_path}/none; mjx reads local folders"):
        open_source(tmp_path / "none")


def test_what_lay_beside_the_weights_is_kept_once_from_run_to_run(run, downloaded):
    keep_companions(open_source(downloaded), run / "huggingface")
    assert sorted(path.name for path in (run / "huggingface").iterdir()) == ["config.json", "tokenizer.json"]
    source = open_source(run)
    assert source.companions is not None
    keep_companions(source, run.parent / "next")
    assert sorted(path.name for path in (run.parent / "next").iterdir()) == ["config.json", "tokenizer.json"]
    keep_companions(open_source(downloaded), run / "huggingface")  # it has them


def test_a_run_that_has_begun_does_not_need_what_it_began_with(run, tmp_path):
    recipe = {"run_dir": str(run), "init_from": str(tmp_path / "deleted")}
    assert fill_in(recipe, str(tmp_path / "deleted"))["model"] == MODEL
    with pytest.raises(InputError, match="There is no folder"):
        fill_in({**recipe, "run_dir": str(tmp_path / "new")}, str(tmp_path / "deleted"))


def test_a_recipe_takes_the_tokenizer_where_it_names_none(downloaded):
    path = str(downloaded)
    assert fill_in({"data": {"corpus": "x"}}, path)["data"] == {"corpus": "x", "tokenizer": path}
    assert fill_in({"data": {"tokenizer": "byte"}}, path)["data"] == {"tokenizer": "byte"}
    (downloaded / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=f"init_from = {path} has no tokenizer"):
        fill_in({"data": {"corpus": "x"}}, path)


def test_a_decoder_has_no_classes(downloaded):
    with pytest.raises(
        InputError, match=r"model.classes = 2 differs from the model of init_from = .* not there"
    ):
        fill_in({"model": {"classes": 2}}, str(downloaded))


def test_what_a_folder_says_of_its_texts_is_taken_where_the_recipe_does_not_say_it(tmp_path):
    folder = tmp_path / "bart"
    folder.mkdir()
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 40}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "decoder_ffn_dim": 40}
    said = {"model_type": "bart", "vocab_size": 300, "decoder_start_token_id": 2, "forced_bos_token_id": 5}
    (folder / "config.json").write_text(json.dumps({**sizes, **heads, **said, "min_length": 9}))
    data = {"kind": "seq2seq", "tokenizer": "byte"}
    recipe = fill_in({"data": data, "sampling": {"min_length": 4}}, str(folder))
    assert recipe["data"] == {**data, "start": 2}
    assert recipe["sampling"] == {"forced_bos_token": 5, "min_length": 4}
    assert fill_in({"data": {**data, "start": 7}}, str(folder))["data"]["start"] == 7
    assert "start" not in fill_in({"data": {"kind": "gpt", "tokenizer": "byte"}}, str(folder))["data"]
