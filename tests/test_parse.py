"""Trees of tagged classes: read and written with their names at every level, presets included."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import pytest

from mjx.errors import InputError
from mjx.files import LocalPath
from mjx.parse import Tag, parse, to_tree
from mjx.trees import yaml_value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    tag: ClassVar[Tag] = Tag(
        "kind",
        ("circle", "square", "group"),
        lambda name: (KINDS[name], PRESETS.get(name, {})),
        prefix="shape.",
    )
    color: str = "black"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Round(Shape):
    """No class of its own: what only circles may stand for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Circle(Round):
    kind: ClassVar[str] = "circle"
    radius: float

    def __post_init__(self):
        if self.radius <= 0:
            raise InputError(f"shape.radius = {self.radius} must be positive")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Border:
    width: int = 1
    dashed: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Square(Shape):
    kind: ClassVar[str] = "square"
    side: float
    border: Border | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group(Shape):
    kind: ClassVar[str] = "group"
    first: Shape
    eye: Round | None = None
    rest: tuple[Shape, ...] = ()
    named: Mapping[str, Shape] = dataclasses.field(default_factory=dict)


KINDS: dict[str, type[Shape]] = {"circle": Circle, "square": Square, "group": Group}
PRESETS: dict[str, Mapping[str, Any]] = {
    "circle": {"dot": Circle(radius=1, color="red")},
    "square": {"tile": Square(side=2, border=Border(width=3))},
    "group": {"face": Group(first=Square(side=9), eye=Circle(radius=1))},
}
GROUP = Group(
    first=Group(first=Circle(radius=2), color="blue"),
    rest=(Square(side=1, border=Border(width=2)), Circle(radius=3)),
    named={"sun": Circle(radius=4)},
)


def test_a_tree_names_its_class_at_every_level_and_is_read_back():
    tree = to_tree(GROUP)
    assert tree["kind"] == "group"
    assert tree["first"]["kind"] == "group"
    assert tree["first"]["first"] == {"kind": "circle", "color": "black", "radius": 2}
    assert [shape["kind"] for shape in tree["rest"]] == ["square", "circle"]
    assert tree["named"]["sun"]["kind"] == "circle"
    assert tree["rest"][0]["border"] == {"width": 2, "dashed": False}
    for kind in (Shape, Group):
        assert parse(kind, tree, "shape") == GROUP


@pytest.mark.parametrize(
    ("tree", "shape"),
    [
        ({"kind": "circle", "preset": "dot"}, Circle(radius=1, color="red")),
        ({"kind": "circle", "preset": "dot", "radius": 5}, Circle(radius=5, color="red")),
        (
            {"kind": "square", "preset": "tile", "border": {"dashed": True}},
            Square(side=2, border=Border(width=3, dashed=True)),
        ),
        ({"kind": "square", "preset": "tile", "border": None}, Square(side=2)),
        # below a preset
        (
            {"kind": "group", "preset": "face", "first": {"side": 8}, "eye": {"radius": 2}},
            Group(first=Square(side=8), eye=Circle(radius=2)),
        ),
        (
            {"kind": "group", "preset": "face", "first": {"kind": "circle", "radius": 2}},
            Group(first=Circle(radius=2), eye=Circle(radius=1)),
        ),
        (
            {"kind": "group", "preset": "face", "first": {"preset": "tile"}, "eye": {"preset": "dot"}},
            Group(first=Square(side=2, border=Border(width=3)), eye=Circle(radius=1, color="red")),
        ),
        # inside of lists and mappings
        (
            {
                "kind": "group",
                "first": {"kind": "circle", "preset": "dot"},
                "rest": [{"kind": "circle", "preset": "dot", "color": "blue"}],
                "named": {"sun": {"kind": "circle", "preset": "dot"}},
            },
            Group(
                first=Circle(radius=1, color="red"),
                rest=(Circle(radius=1, color="blue"),),
                named={"sun": Circle(radius=1, color="red")},
            ),
        ),
    ],
)
def test_a_preset_stands_below_what_is_said_at_any_level(tree, shape):
    assert parse(Shape, tree, "shape") == shape


def test_the_class_of_a_field_that_allows_one_need_not_be_named():
    tree = {"kind": "group", "first": {"kind": "circle", "radius": 1}}
    assert parse(Circle, {"radius": 1}, "shape") == Circle(radius=1)
    assert parse(Group, {"first": tree["first"]}, "shape") == parse(Shape, tree, "shape")


def test_a_default_is_taken_where_no_class_is_named(monkeypatch):
    monkeypatch.setattr(Shape, "tag", dataclasses.replace(Shape.tag, default="circle"))
    assert parse(Shape, {"radius": 1}, "shape") == Circle(radius=1)
    assert to_tree(Circle(radius=1))["kind"] == "circle"


CIRCLE = {"kind": "circle", "radius": 1}


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        ({}, "shape.kind is missing (choose from circle, square, group)"),
        ({"kind": "cirle"}, "shape.kind = 'cirle' is not known (choose from circle, square, group)"),
        ({"kind": ["circle"]}, "shape.kind = ['circle'] is not known (choose from circle, square, group)"),
        ({"kind": "group", "first": {}}, "shape.first.kind is missing (choose from circle, square, group)"),
        (
            {"kind": "group", "first": CIRCLE, "eye": {"kind": "square", "side": 1}},
            "shape.eye.kind = 'square' cannot stand here (choose from circle)",
        ),
        (
            {"kind": "group", "first": CIRCLE | {"preset": "dott"}},
            "shape.first.preset = 'dott' is not known (did you mean dot?)",
        ),
        (
            {"kind": "group", "first": {"kind": "circle", "radios": 1}},
            "the key shape.first.radios does not exist (did you mean radius?)",
        ),
        (
            {"kind": "group", "first": CIRCLE, "rest": [CIRCLE, {"kind": "square", "sid": 1}]},
            "the key shape.rest.1.sid does not exist (did you mean side?)",
        ),
        (
            {"kind": "group", "first": CIRCLE, "named": {"sun": {"kind": "circle", "radios": 1}}},
            "the key shape.named.sun.radios does not exist (did you mean radius?)",
        ),
        ({"kind": "circle", "radius": 0}, "shape.radius = 0.0 must be positive"),
        (
            {"kind": "group", "first": {"kind": "circle"}},
            "shape.first.radius is missing: the recipe has to say it",
        ),
        (
            {"kind": "group", "first": CIRCLE, "rest": [{"kind": "circle", "radius": -1}]},
            "shape.rest.0.radius = -1.0 must be positive",
        ),
        (
            {"kind": "group", "first": {"kind": "square", "side": 1, "border": {"width": "wide"}}},
            "shape.first.border.width = 'wide' is not accepted: input should be a valid integer, unable "
            "to parse string as an integer",
        ),
        (
            {"kind": "group", "first": {"kind": "square", "side": True}},
            "shape.first.side = true is not accepted: input should be a number",
        ),
        (
            {"kind": "group", "first": 3},
            "shape.first = 3 is not accepted: input should be a mapping of its keys",
        ),
        (
            {"kind": "group", "first": {"kind": "circle", "radius": 0}, "rest": [{"kind": "circle", "x": 1}]},
            "the key shape.rest.0.x does not exist (known: color, radius)",
        ),
    ],
)
def test_a_wrong_tree_is_refused_with_the_whole_path(tree, sentence):
    with pytest.raises(InputError) as refused:
        parse(Shape, tree, "shape")
    assert str(refused.value) == sentence


@dataclasses.dataclass(frozen=True, kw_only=True)
class Words:
    name: str = ""
    maybe: str | None = None
    folder: LocalPath | None = None
    names: tuple[str, ...] = ()
    by_name: dict[str, int] = dataclasses.field(default_factory=dict)
    choice: Literal["1", "on", "two"] = "two"
    number: int | None = 0
    real: float | None = 0.0
    reals: tuple[float, ...] = ()
    flag: bool = False
    anything: Any = None


@pytest.mark.parametrize(
    ("word", "as_text", "otherwise"),
    [
        ("20241101_120000", "20241101_120000", ("number", 20241101120000)),
        ("007", "007", ("number", 7)),
        ("0x1F", "0x1F", ("number", 31)),
        ("1e5", "1e5", ("real", 1e5)),
        ("1e-3", "1e-3", ("real", 1e-3)),
        ("-.5", "-.5", ("real", -0.5)),
        ("3", "3", ("real", 3.0)),
        ("true", "true", ("flag", True)),
        ("FALSE", "FALSE", ("flag", False)),
        ("on", "on", ("flag", True)),
        ("no", "no", ("flag", False)),
        ("2024-11-01", "2024-11-01", ("anything", "2024-11-01")),
        ("2024-99-99", "2024-99-99", ("anything", "2024-99-99")),
        ("0b_", "0b_", ("anything", "0b_")),
        (".inf", ".inf", ("anything", float("inf"))),
        ("12", "12", ("anything", 12)),
        ('"007"', "007", ("number", 7)),
    ],
)
def test_a_word_is_text_where_text_is_wanted(word, as_text, otherwise):
    text = f"{{name: {word}, maybe: {word}, folder: {word}, names: [{word}], by_name: {{{word}: 1}}}}"
    words = parse(Words, yaml_value(text, "it"), "words")
    assert (words.name, words.maybe, words.folder, words.names) == (as_text, as_text, as_text, (as_text,))
    assert words.by_name == {as_text: 1}
    field, value = otherwise
    assert getattr(parse(Words, yaml_value(f"{field}: {word}", "it"), "words"), field) == value


def test_a_word_is_a_choice_where_it_is_one_and_null_is_nothing():
    words = parse(Words, yaml_value("{choice: 1, maybe: null, folder: ~, number: }", "it"), "words")
    assert (words.choice, words.maybe, words.folder, words.number) == ("1", None, None, None)
    anything = parse(Words, yaml_value("anything: [1, {a: true, 2: .5}]", "it"), "words").anything
    assert anything == [1, {"a": True, "2": 0.5}]


def test_a_path_is_read_in_one_way(monkeypatch):
    monkeypatch.setenv("HOME", "/home/of")
    for text, path in (("~/a b", "/home/of/a b"), ("~", "/home/of"), ("$X/~", "$X/~"), ("byte", "byte")):
        assert parse(Words, {"folder": text}, "words").folder == path
        assert parse(Words, {"name": text}, "words").name == text
    with pytest.raises(InputError, match=r"words.folder = ~nobody-here/a: .* is written ./~nobody-here/a"):
        parse(Words, {"folder": "~nobody-here/a"}, "words")
    assert parse(Words, {"folder": "./~nobody-here/a"}, "words").folder == "./~nobody-here/a"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("number: None", "words.number = None is not accepted: the word is null"),
        ("real: None", "words.real = None is not accepted: the word is null"),
        ("maybe: None", "words.maybe = None is not accepted: the word is null"),
        ("folder: None", "words.folder = None is not accepted: the word is null"),
        ("name: null", "words.name = null is not accepted: input should be text"),
        ("name: [1]", "words.name = [1] is not accepted: input should be text"),
        ("real: .inf", "words.real = inf is not accepted: input should be a finite number"),
        ("real: -inf", "words.real = '-inf' is not accepted: input should be a finite number"),
        ("real: 1e999", "words.real = inf is not accepted: input should be a finite number"),
        ("reals: [1, nan]", "words.reals.1 = 'nan' is not accepted: input should be a finite number"),
        ("number: true", "words.number = true is not accepted: input should be a number"),
        ("reals: [false]", "words.reals.0 = false is not accepted: input should be a number"),
        ("choice: 2", "words.choice = 2 is not accepted: input should be '1', 'on' or 'two'"),
    ],
)
def test_a_word_of_another_kind_is_shown_as_it_stands_there(text, sentence):
    with pytest.raises(InputError) as refused:
        parse(Words, yaml_value(text, "it"), "words")
    assert str(refused.value) == sentence
