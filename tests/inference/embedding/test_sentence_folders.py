"""Folders that sentence-transformers has written give its embeddings; the goldens hold both."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mjx.data.tokenizers import load_tokenizer
from mjx.errors import InputError
from mjx.inference.embedding import Embedder, TextEmbedder
from mjx.models.huggingface import from_pretrained
from mjx.models.huggingface.sentence_modules import SentenceModules, read_sentence_modules
from mjx.sharding import MeshConfig, build_mesh

GOLDENS = Path(__file__).parents[2] / "goldens" / "huggingface"
FOLDERS = GOLDENS / "sentence_folders"
spec = importlib.util.spec_from_file_location("sentence_folders", GOLDENS / "sentence_folders.py")
assert spec is not None
assert spec.loader is not None
theirs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(theirs)
with np.load(FOLDERS / "expected.npz") as file:
    EXPECTED = dict(file)


def folder_of(case: str) -> Path:
    return FOLDERS / case.replace(", ", "-")


def opened(folder: Path, says: SentenceModules | None = None, **options) -> TextEmbedder:
    says = says or read_sentence_modules(folder)
    model = from_pretrained(folder, mesh=options.get("mesh"))
    embedder = Embedder(
        model.definition,
        model.parameters,
        **{"pooling": says.pooling, "dense": says.dense, "normalize": says.normalize, **options},
    )
    return TextEmbedder(
        embedder,
        load_tokenizer(folder),
        max_length=says.max_length,
        prompt=says.prompt,
        lower_case=says.lower_case,
    )


@pytest.fixture(scope="module")
def mean() -> TextEmbedder:
    return opened(folder_of("mean"))


@pytest.mark.parametrize("case", theirs.CASES)
def test_embeddings_are_those_of_sentence_transformers(case):
    embedder = opened(folder_of(case))
    np.testing.assert_allclose(embedder(theirs.TEXTS), EXPECTED[case], atol=1e-5)
    assert embedder.cut == {"local, cut": 2}.get(case, 0)


def test_any_mesh_and_any_batch_gives_the_same(mean):
    texts = [*theirs.TEXTS] * 3
    mesh = build_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    split = opened(folder_of("mean"), mesh=mesh, batch_tokens=64)
    np.testing.assert_allclose(split(texts), np.tile(EXPECTED["mean"], (3, 1)), atol=1e-5)


def test_no_text_has_no_embedding_and_an_empty_one_has_that_of_its_special_tokens(mean):
    assert mean([]).shape == (0, 16)
    assert mean.tokens([""]) == [[1, 2]]
    np.testing.assert_allclose(mean([""]), EXPECTED["mean"][[2]], atol=1e-5)


def test_what_is_cut_keeps_what_stands_behind_it(mean):
    whole = mean.tokens([theirs.TEXTS[1]])[0]
    short = opened(folder_of("mean"), SentenceModules(max_length=7))
    assert short.tokens([theirs.TEXTS[1], "shard"]) == [[*whole[:6], whole[-1]], mean.tokens(["shard"])[0]]
    assert short.cut == 1
    with pytest.raises(InputError, match="max_length = 2 leaves no room"):
        opened(folder_of("mean"), SentenceModules(max_length=2))


@pytest.fixture
def copy(tmp_path) -> Path:
    return Path(shutil.copytree(folder_of("cls, dense"), tmp_path / "copy"))


def rewrite(path: Path, **changes) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


def test_older_folders_say_their_pooling_by_flags_and_the_length_in_a_file_of_its_own(copy):
    modes = {
        "pooling_mode_mean_tokens": True,
        "pooling_mode_cls_token": True,
        "pooling_mode_lasttoken": False,
    }
    config = {"word_embedding_dimension": 16, **modes}
    (copy / "1_Pooling" / "config.json").write_text(json.dumps(config))
    (copy / "sentence_bert_config.json").write_text('{"max_seq_length": 12, "do_lower_case": true}')
    says = read_sentence_modules(copy)
    assert (says.pooling, says.max_length, says.lower_case) == (("cls", "mean"), 12, True)
    model = from_pretrained(copy)
    with pytest.raises(InputError, match="dense layer 0 takes 16 features, and gets 32"):
        Embedder(model.definition, model.parameters, pooling=says.pooling, dense=says.dense)


@pytest.mark.parametrize(
    ("file", "changes", "sentence"),
    [
        ("1_Pooling/config.json", {"pooling_mode": "median"}, 'the pooling mode "median"'),
        (
            "2_Dense/config.json",
            {"activation_function": "torch.nn.modules.activation.Softplus"},
            "Softplus; mjx knows Identity, Tanh",
        ),
        ("2_Dense/config.json", {"use_residual": True}, "carried without use_residual"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, '"transformer_task": fill-mask'),
        ("sentence_bert_config.json", {"max_seq_length": 0}, '"max_seq_length": 0'),
        ("config_sentence_transformers.json", {"default_prompt_name": "title"}, "title, and no such prompt"),
    ],
)
def test_what_is_not_carried_is_refused_by_name(copy, file, changes, sentence):
    rewrite(copy / file, **changes)
    with pytest.raises(InputError, match=sentence):
        read_sentence_modules(copy)


def test_modules_that_are_not_carried_are_refused_by_name(copy):
    modules = json.loads((copy / "modules.json").read_text())
    modules[2]["type"] = "sentence_transformers.models.LSTM"
    (copy / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match="a LSTM module as number 2 is not carried"):
        read_sentence_modules(copy)
    (copy / "modules.json").write_text("{}")
    with pytest.raises(InputError, match="is not a list of modules"):
        read_sentence_modules(copy)
