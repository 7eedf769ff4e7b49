"""`data.kind`: which config a recipe's data is read as, and what is refused."""

import dataclasses
import sys
import types
from typing import ClassVar

import pytest

from mjx.batch import BatchArray, token_batch
from mjx.config import parse_config
from mjx.data.config import KINDS, DatasetConfig
from mjx.data.gpt import GPTDatasetConfig
from mjx.errors import InputError
from mjx.parse import to_tree
from mjx.source import fill_in
from mjx.trees import to_yaml

RECIPE = {
    "model": {"family": "gpt", "preset": "gpt2-124m"},
    "data": {"corpus": "python-docs", "sequence_length": 64},
    "training": {"steps": 2, "batch_size": 4},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureConfig(DatasetConfig):
    """Pictures, which have neither tokens nor a tokenizer."""

    kind: ClassVar[str] = "pictures"
    size: int = 8

    def arrays(self, rows):
        shape = (rows, self.size, self.size)
        return {"pixels": BatchArray(shape=shape, dtype="uint8", axes=("batch", "height", "width"))}


@pytest.fixture
def pictures(monkeypatch):
    monkeypatch.setitem(sys.modules, "pictures", types.SimpleNamespace(CONFIG=PictureConfig))
    monkeypatch.setitem(KINDS, "pictures", "pictures")


def test_data_without_a_kind_is_of_token_rows_and_is_written_with_its_kind():
    config = parse_config(RECIPE)
    assert config.data == GPTDatasetConfig(corpus="python-docs", sequence_length=64)
    assert to_tree(config)["data"]["kind"] == "gpt"
    assert parse_config(to_tree(config)) == config
    assert config.data.arrays(4) == token_batch(4, 64)


@pytest.mark.usefixtures("pictures")
def test_a_kind_is_read_with_its_own_keys_and_those_of_every_kind():
    config = parse_config(RECIPE | {"data": {"kind": "pictures", "size": 4, "seed": 7}})
    assert config.data == PictureConfig(size=4, seed=7)
    assert parse_config(to_tree(config)) == config
    with pytest.raises(InputError, match="the batches have no array 'tokens', which the model needs"):
        config.model.check_batch(config.data.arrays(4))


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            {"kind": "picture"},
            "data.kind = 'picture' is not known (choose from gpt, bert, t5, seq2seq, classify, contrastive, "
            "images, captions, image_text, pictures)",
        ),
        (
            {"kind": "pictures", "sequence_length": 8},
            "the key data.sequence_length does not exist (known: split, seed, "
            "cache_dir, prefetch, threads, size)",
        ),
        ({"kind": "pictures", "threads": 0}, "data.threads = 0 must be at least 1."),
        (
            {"corpus": "python-docs", "sequence_lenght": 8},
            "the key data.sequence_lenght does not exist (did you mean sequence_length?)",
        ),
        (
            {"split": "1"},
            "data.corpus = None and sources = []: give one of the two.",
        ),
    ],
)
def test_data_that_is_wrong_is_refused(data, sentence):
    with pytest.raises(InputError) as refused:
        parse_config(RECIPE | {"data": data})
    assert str(refused.value) == sentence


@pytest.mark.usefixtures("pictures")
def test_a_tokenizer_is_taken_over_only_by_data_that_has_text(tmp_path):
    (tmp_path / "config.yaml").write_text(to_yaml({"model": to_tree(parse_config(RECIPE).model)}))
    (tmp_path / "tokenizer").mkdir()
    recipe = {"init_from": str(tmp_path), "training": RECIPE["training"]}
    filled = fill_in(recipe | {"data": {"sources": [{"path": "x"}]}}, str(tmp_path))
    assert filled["data"]["tokenizer"] == str(tmp_path / "tokenizer")
    assert "tokenizer" not in fill_in(recipe | {"data": {"kind": "pictures"}}, str(tmp_path))["data"]
