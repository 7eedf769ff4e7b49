"""Trees of tagged classes: read and written with their names at every level, presets included."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from mjx.errors import InputError
from mjx.parse import Tag, parse, to_tree


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
