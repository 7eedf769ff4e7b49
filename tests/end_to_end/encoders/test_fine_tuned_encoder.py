"""An encoder's folder, fine-tuned to tell classes: from its weights to `mjx classify`, and transformers."""

import dataclasses
import io
import json
import random

import jax
import numpy as np
import pytest
import tokenizers
from flax import nnx
from running import changed, records

from mjx.config import parse_config
from mjx.data.loader import evaluation_batches
from mjx.data.tokenizers.huggingface import HuggingFaceTokenizer
from mjx.errors import InputError
from mjx.models.bert import BertConfig
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.parameter import parameters_of
from mjx.models.common.token_model.head import HeadTransformConfig
from mjx.models.huggingface import PretrainedModel, save_pretrained
from mjx.run.given import given_parameters
from mjx.run.loop import build_trainer, train
from mjx.source import open_source
from mjx.trees import flatten

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz"]
LABELS = ["early", "middle", "late"]
"""Of which third of the alphabet most letters are."""
NORM = NormConfig(epsilon=1e-12)
BERT = BertConfig(
    num_layers=2,
    hidden_size=32,
    vocab_size=len(WORDS),
    max_positions=32,
    token_types=2,
    attention=AttentionConfig(num_heads=4, qkv_bias=True, output_bias=True),
    mlp=MLPConfig(features=64, bias=True),
    norm=NORM,
    norm_placement="residual",
    embedding_norm=NORM,
    head_transform=HeadTransformConfig(norm=NORM),
    head_bias=True,
    tie_embeddings=True,
    init_std=0.1,
    dtype="float32",
)
HEAD = {
    *("head_bias", "head_transform.dense.bias", "head_transform.dense.kernel"),
    *("head_transform.norm.bias", "head_transform.norm.scale"),
}
NEW = {"classifier.bias", "classifier.kernel", "pooler.bias", "pooler.kernel"}


def rows(count, seed):
    draw = random.Random(seed)
    for _ in range(count):
        label = draw.randrange(3)
        letters = draw.choices(WORDS[4:], k=2) + draw.choices(WORDS[4 + 9 * label : 13 + 9 * label], k=6)
        draw.shuffle(letters)
        yield {"text": " ".join(letters), "other": draw.choice("xyz"), "label": LABELS[label], "score": label}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A BertForMaskedLM with its tokenizer, and rows to learn from."""
    path = tmp_path_factory.mktemp("encoder")
    library = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: number for number, word in enumerate(WORDS)}, "[UNK]")
    )
    library.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    library.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    HuggingFaceTokenizer(library, None, None, "[PAD]", **names).save(path / "tokenizer")
    model = PretrainedModel(BERT, parameters_of(BERT.build(nnx.Rngs(3))))
    save_pretrained(model, path / "model", architecture="bert", tokenizer=path / "tokenizer")
    (path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows(400, 0))))
    return path


@pytest.fixture(scope="module")
def recipe(folder):
    """Three classes; the model's section says nothing else."""
    return {
        "init_from": str(folder / "model"),
        "model": {"classes": 3, "dtype": "float32"},
        "data": {
            "kind": "classify",
            "sources": [{"path": str(folder / "rows.jsonl")}],
            "classes": LABELS,
            "sequence_length": 16,
            "split": "80,20,0",
            "cache_dir": str(folder / "cache"),
        },
        "training": {"steps": 60, "batch_size": 32, "evaluation_rows": 100},
        "schedule": {"learning_rate": 3e-3, "warmup_steps": 5},
        "logging": {"interval": 10, "tensorboard": False, "progress": False},
        "run_dir": str(folder / "run"),
    }


@pytest.fixture(scope="module")
def run(recipe, folder):
    """The trained run, on a mesh."""
    config = parse_config(changed(recipe, mesh__data=2, mesh__fsdp=2, mesh__tensor=2))
    result = train(config)
    assert result.finished
    return folder / "run", result


def test_scores_are_logged_and_labels_stay_with_the_run(run, recipe):
    path, result = run
    (scores,) = [record for record in records(path) if "validation_loss" in record]
    assert scores["validation_accuracy"] > 0.85
    assert abs(scores["validation_macro_f1"] - scores["validation_accuracy"]) < 0.1
    assert scores["validation_matthews"] > 0.75
    assert open_source(path).recipe()["model"]["labels"] == LABELS
    # Batches of another size, another mesh: the same numbers.
    small = changed(recipe, training__batch_size=8)
    trainer = build_trainer(parse_config(small))
    data = parse_config(small).data.open(len(WORDS)).validation()[""]
    parameters = jax.device_put(jax.device_get(result.state.parameters), trainer.layout.shardings.parameters)
    again = trainer.evaluate(parameters, evaluation_batches(data, 8))
    for name, value in again.scores.items():
        assert scores[f"validation_{name}"] == pytest.approx(value, abs=1e-12)
    assert again.losses["loss"] == pytest.approx(scores["validation_loss"], rel=1e-5)


def test_the_encoder_is_the_folder_s_and_the_heads_are_drawn_and_named(recipe):
    config = parse_config(recipe)
    trainer, source = build_trainer(config), open_source(recipe["init_from"])
    given, theirs = given_parameters(source, trainer, seed=7), parameters_of(BERT.build(nnx.Rngs(3)))
    new, left = (set(said.partition(": ")[2].split(", ")) for said in given.said)
    assert (new, left) == (NEW, HEAD)
    assert given.said[0].startswith("new, drawn by training.seed")
    ours, fresh = flatten(given.parameters), flatten(trainer.init(7).parameters)
    for name, value in flatten(theirs).items():
        if name not in HEAD:
            rows_ = len(WORDS) if name == "embedding.weight" else len(value)  # the rest pads it
            np.testing.assert_array_equal(ours[name][:rows_], value[:rows_])
    for name in NEW:
        np.testing.assert_array_equal(ours[name], fresh[name])


def test_a_pooler_that_the_folder_lacks_is_new_and_all_else_that_it_lacks_is_an_error(recipe, tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    states = dataclasses.replace(BERT, head_transform=None, head_bias=False, pooler=True)
    save_pretrained(PretrainedModel(states, parameters_of(states.build(nnx.Rngs(3)))), tmp_path / "m")
    tree = changed(recipe, init_from=str(tmp_path / "m"), data__tokenizer=f"{recipe['init_from']}")
    trainer, file = build_trainer(parse_config(tree)), tmp_path / "m" / "model.safetensors"
    tensors = numpy.load_file(file)
    (said,) = given_parameters(open_source(tmp_path / "m"), trainer, 0).said
    assert said == "new, drawn by training.seed: classifier.bias, classifier.kernel"
    numpy.save_file({name: each for name, each in tensors.items() if "pooler" not in name}, file)
    (said,) = given_parameters(open_source(tmp_path / "m"), trainer, 0).said
    assert set(said.partition(": ")[2].split(", ")) == NEW
    lost = "encoder.layer.1.output.dense.bias"
    numpy.save_file({name: each for name, each in tensors.items() if name != lost}, file)
    with pytest.raises(InputError, match=rf"1 missing \({lost}\)"):
        given_parameters(open_source(tmp_path / "m"), trainer, 0)


def test_other_classes_have_a_new_classifier_and_the_same_ones_keep_it(run, recipe):
    path, _ = run
    again = {**recipe, "init_from": str(path), "run_dir": f"{path}-other"}
    kept = parse_config(changed(again, model__classes=3))
    assert kept.model.labels == tuple(LABELS)
    assert given_parameters(open_source(path), build_trainer(kept), 0).said == ()
    two = changed(again, model__classes=2, data__classes=["early", "late"])
    said = given_parameters(open_source(path), build_trainer(parse_config(two)), 0).said
    assert said == (
        "new, drawn by training.seed: classifier.bias, classifier.kernel",
        f"left out of {path}: classifier.bias, classifier.kernel",
    )
    named = changed(again, data__classes=["a", "b", "c"])
    with pytest.raises(InputError, match="are not the model's labels, which are"):
        parse_config(named)
    renamed = parse_config(changed(named, model__labels=[]))
    assert len(given_parameters(open_source(path), build_trainer(renamed), 0).said) == 2


def test_texts_are_told_as_transformers_tells_them(run, folder, tmp_path, capsys, monkeypatch, main_here):
    path, _ = run
    texts = [row["text"] for row in rows(30, 5)]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n")
    main_here(
        "classify", str(path), str(tmp_path / "texts.txt"), "--batch-tokens", "256", "--format", "jsonl"
    )
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    truth = [row["label"] for row in rows(30, 5)]
    assert np.mean([one["label"] == label for one, label in zip(told, truth, strict=True)]) > 0.8
    main_here("export", str(path), str(tmp_path / "hf"), "--format", "huggingface")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {str(number): label for number, label in enumerate(LABELS)}
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(texts).encode())))
    main_here("classify", str(tmp_path / "hf"), "mesh.data=2", "mesh.fsdp=2", "mesh.tensor=2")
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split("\t") == ["label", *LABELS]
    for line, one in zip(lines, told, strict=True):
        label, *values = line.split("\t")
        assert label == one["label"]
        np.testing.assert_allclose(np.array(values, float), list(one["probabilities"].values()), atol=3e-6)
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "hf").eval()
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "hf")
    with torch.no_grad():
        logits = theirs(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    expected = torch.softmax(logits, dim=-1).numpy()
    found = [list(one["probabilities"].values()) for one in told]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert [theirs.config.id2label[at] for at in expected.argmax(axis=1)] == [one["label"] for one in told]


def test_numbers_and_pairs(recipe, folder, capsys, tmp_path, main_here, refused):
    numbers = changed(
        recipe, model__classes=1, data__classes=[], data__label_key="score", data__pair_key="other"
    )
    numbers["run_dir"] = str(tmp_path / "run")
    assert train(parse_config(changed(numbers, training__steps=40))).finished
    scores = list(records(tmp_path / "run"))[-1]
    assert scores["validation_pearson"] > 0.5
    assert scores["validation_spearman"] > 0.5
    capsys.readouterr()
    main_here("classify", str(tmp_path / "run"), str(folder / "rows.jsonl"))
    header, *lines = capsys.readouterr().out.splitlines()
    assert header == "number"
    truth = [row["score"] for row in rows(400, 0)]
    assert np.corrcoef([float(line) for line in lines], truth)[0, 1] > 0.5
    (tmp_path / "one.txt").write_text("a b c\n")
    said = refused("classify", tmp_path / "run", tmp_path / "one.txt")
    assert "line 1: there is one text; the model reads two texts a row" in said


REFUSED = {
    'line 3: the label "late" is none of data.classes': {"data__classes": ["early", "middle"], "classes": 2},
    "has 3 names, and model.classes = 2; set model.classes = 3": {"classes": 2},
    "model.classes = null: set it to how many there are": {"classes": None},
    "model.classes = 3 learns classes; name them as data.classes": {
        **{"data__classes": [], "data__label_key": "score"}
    },
    "the label 'early' is no number": {"data__classes": [], "classes": 1},
    'no key "stars"': {"data__label_key": "stars"},
    "model.hidden_size = 64 differs from the model of init_from": {"model__hidden_size": 64},
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_cannot_work_is_refused(recipe, sentence, tmp_path):
    given = {
        "model__classes" if name == "classes" else name: each for name, each in REFUSED[sentence].items()
    }
    (tmp_path / "rows.jsonl").write_text(
        "\n".join(json.dumps({"text": "a b", "label": label}) for label in LABELS)
    )
    tree = changed(recipe, **given, data__sources=[{"path": str(tmp_path / "rows.jsonl")}])
    if "score" in str(given):
        tree["data"]["sources"] = recipe["data"]["sources"]
    with pytest.raises(InputError) as error:
        train(parse_config({**tree, "run_dir": str(tmp_path / "run")}))
    assert sentence in str(error.value)


def test_an_empty_file_and_a_model_without_a_classifier_are_refused(recipe, folder, tmp_path, refused):
    (tmp_path / "rows.jsonl").write_text("")
    with pytest.raises(InputError, match="there is no row"):
        train(parse_config(changed(recipe, data__sources=[{"path": str(tmp_path / "rows.jsonl")}])))
    for path, file, sentence in (
        (folder / "model", "rows.jsonl", "is a model without a classifier: train one from it"),
        (folder / "nothing", "rows.jsonl", "There is no folder"),
    ):
        assert sentence in refused("classify", path, tmp_path / file)
