"""A model made of another family's model: its config keeps both families on every way that configs go."""

import dataclasses
import sys
import types
from typing import ClassVar

import pytest

from mjx.checkpoint.run_folder import RunFolder
from mjx.config import apply_override, parse_config
from mjx.errors import InputError
from mjx.models import FAMILIES
from mjx.models.family import Family, ModelConfig
from mjx.models.gpt import PUBLISHED, GPTConfig
from mjx.models.interop.architecture import Architecture
from mjx.models.interop.architectures import find_architecture, fitting_architecture
from mjx.models.interop.config_map import ConfigMap, Constant, Key
from mjx.models.interop.name_map import NameMap
from mjx.parse import to_tree
from mjx.run.opened import read_inference_config
from mjx.run.resume import changes_since
from mjx.trees import read_yaml, to_yaml


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaptionerConfig(ModelConfig):
    """A language model, perhaps with a second one that reads."""

    family: ClassVar[str] = "captioner"
    training_choices: ClassVar[tuple[str, ...]] = ("dtype", "language.dropout")
    language: ModelConfig
    reader: GPTConfig | None = None
    scale: float = 1.0


def _no_names(_: CaptionerConfig) -> NameMap:
    raise ValueError("it has no names for tensors")


GPT2 = PUBLISHED["gpt2-124m"]
NARROW = dataclasses.replace(GPT2, num_layers=2, dropout=0.1)
CAPTIONER = Architecture(
    model_type="captioner",
    class_name="Captioner",
    config=ConfigMap(
        CaptionerConfig,
        (
            Key("scale", "scale"),
            Constant("language.family", "gpt"),
            Constant("language.preset", "gpt2-124m"),
            Key("layers", "language.num_layers"),
        ),
        ("model_type", "architectures"),
    ),
    name_map=_no_names,
    prefix="",
    canonical=lambda config: dataclasses.replace(
        config, language=dataclasses.replace(config.language, dropout=0.0)
    ),
)


@pytest.fixture(autouse=True)
def captioner(monkeypatch):
    family = Family(
        config=CaptionerConfig,
        published={"small": CaptionerConfig(language=NARROW, reader=GPT2, scale=0.5)},
        architectures=(CAPTIONER,),
    )
    monkeypatch.setitem(sys.modules, "captioner", types.SimpleNamespace(FAMILY=family))
    monkeypatch.setitem(FAMILIES, "captioner", "captioner")


def recipe(model):
    return {
        "model": model,
        "data": {"corpus": "python-docs"},
        "training": {"steps": 2, "batch_size": 4},
    }


MODEL = {
    "family": "captioner",
    "language": {"family": "gpt", "preset": "gpt2-124m", "num_layers": 2, "dropout": 0.1},
    "reader": {"preset": "gpt2-124m"},
    "scale": 0.5,
}


def test_a_recipe_names_families_and_presets_at_every_level():
    expected = CaptionerConfig(language=NARROW, reader=GPT2, scale=0.5)
    assert parse_config(recipe(MODEL)).model == expected
    assert parse_config(recipe({"family": "captioner", "preset": "small"})).model == expected
    tree = recipe({"family": "captioner", "preset": "small"})
    apply_override(tree, "model.language.attention.num_heads=6")
    apply_override(tree, "model.reader=null")
    model = parse_config(tree).model
    assert model.language == dataclasses.replace(
        NARROW, attention=dataclasses.replace(NARROW.attention, num_heads=6)
    )
    assert model.reader is None


def test_it_survives_the_way_to_a_run_folder_and_back(tmp_path):
    config = parse_config(recipe(MODEL))
    with RunFolder(tmp_path / "run") as folder:
        folder.write_config(to_yaml(to_tree(config)))
    written = read_yaml(folder.config)
    assert written["model"]["language"]["family"] == written["model"]["reader"]["family"] == "gpt"
    assert parse_config(written) == config
    assert read_inference_config(str(folder.path)).model == config.model
    assert list(changes_since(written, config)) == []
    of_before = written | {"data": {k: v for k, v in written["data"].items() if k not in ("kind", "packing")}}
    assert list(changes_since(of_before, config)) == []
    deeper = parse_config(recipe(MODEL | {"language": MODEL["language"] | {"num_layers": 3}}))
    assert list(changes_since(of_before, deeper)) == ["model.language.num_layers: 2 → 3"]


def test_a_run_starts_from_it_with_what_a_run_may_choose(tmp_path):
    config = parse_config(recipe(MODEL))
    with RunFolder(tmp_path / "run") as folder:
        folder.write_config(to_yaml(to_tree(config)))
        folder.tokenizer.mkdir()
    start = {**recipe({"language": {"dropout": 0.3}}), "init_from": str(folder.path)}
    language = dataclasses.replace(NARROW, dropout=0.3)
    assert parse_config(start).model == dataclasses.replace(config.model, language=language)
    start["model"] = {"language": {"num_layers": 3}}
    with pytest.raises(InputError, match=r"model\.language\.num_layers = 3 differs from"):
        parse_config(start)
    start["model"] = {"language": {"preset": "gpt2-355m"}}
    with pytest.raises(InputError, match=r"model\.language\.preset = gpt2-355m differs from"):
        parse_config(start)


def test_another_librarys_config_makes_it_and_what_that_cannot_say_is_named():
    theirs = {"model_type": "captioner", "scale": 0.5, "layers": 2}
    family, architecture = find_architecture(theirs)
    model = architecture.config.to_ours(theirs, "config.json")
    assert family == "captioner"
    assert model == CaptionerConfig(language=dataclasses.replace(NARROW, dropout=0.0), scale=0.5)
    assert fitting_architecture(dataclasses.replace(model, language=NARROW)) is CAPTIONER
    with pytest.raises(InputError, match=r"nearest, captioner, has no model\.language\.norm\.epsilon"):
        fitting_architecture(
            dataclasses.replace(
                model,
                language=dataclasses.replace(NARROW, norm=dataclasses.replace(NARROW.norm, epsilon=0.1)),
            )
        )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"language": {"preset": "gpt2-124m"}},
            f"model.language.family is missing (choose from {', '.join((*FAMILIES, 'captioner'))})",
        ),
        (
            {"language": {"family": "gpt", "preset": "gpt2-1240m"}},
            "model.language.preset = 'gpt2-1240m' is not known (did you mean gpt2-124m?)",
        ),
        (
            {"reader": {"family": "captioner"}},
            "model.reader.family = 'captioner' cannot stand here (choose from gpt)",
        ),
        (
            {"language": {"family": "gpt", "preset": "gpt2-124m", "attention": {"num_head": 4}}},
            "the key model.language.attention.num_head does not exist (did you mean num_heads?)",
        ),
        (
            {"language": {"family": "gpt", "preset": "gpt2-124m", "num_layers": 0}},
            "model.language.num_layers = 0 must be positive",
        ),
        (
            {"language": {"family": "gpt", "preset": "gpt2-124m", "attention": {"num_query_groups": 5}}},
            "model.language.attention.num_query_groups = 5 does not divide num_heads = 12 "
            "(choose 1, 2, 3, 4, 6 or 12)",
        ),
    ],
)
def test_what_is_wrong_inside_is_named_with_its_whole_path(change, sentence):
    with pytest.raises(InputError) as refused:
        parse_config(recipe(MODEL | change))
    assert str(refused.value) == sentence
