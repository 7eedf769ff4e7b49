"""What `mjx explain` says of activations, and what its page shows."""

import itertools
from html.parser import HTMLParser

import jax
import pytest

from mjx.batch import token_batch
from mjx.cli import main
from mjx.config import parse_config
from mjx.models.common.parameter import parameters_of
from mjx.models.family import abstract_model
from mjx.plan.explain.activations import activations_of
from mjx.plan.explain.drawing import DRAWN_DEVICES, draw, draw_mesh
from mjx.plan.explain.placement import place
from mjx.sharding.rules import default_rules
from mjx.trees import flatten, to_yaml
from mjx.words import readable_bytes

LLAMA = {
    "model": {
        "family": "gpt",
        "num_layers": 3,
        "hidden_size": 64,
        "vocab_size": 256,
        "dtype": "bfloat16",
        "attention": {"num_heads": 8, "num_query_groups": 4, "rope": {"base": 10000.0}},
        "mlp": {"features": 128, "activation": "silu", "gated": True},
        "norm": {"kind": "rmsnorm"},
    },
    "data": {"corpus": "python-docs", "vocab_size": 256, "sequence_length": 32},
    "training": {"steps": 1, "batch_size": 16, "microbatches": 2},
    "mesh": {"data": 1, "fsdp": 2, "tensor": 4},
}
RESIDUAL = "batch→fsdp, residual_sequence→tensor, embed"
WHOLE = "batch→fsdp, sequence, embed"
QUERIES = "batch→fsdp, sequence, heads→tensor, head_dim"
KEYS = "batch→fsdp, sequence, kv_heads→tensor, head_dim"
LAYER = "decoder.segments.0"
ROWS = [
    ("batch",),
    ("batch tokens", "batch→fsdp, sequence", "8 × 32", "int32", "4 × 32", "512 B"),
    ("batch labels", "batch→fsdp, sequence", "8 × 32", "int32", "4 × 32", "512 B"),
    ("batch loss_mask", "batch→fsdp, sequence", "8 × 32", "float32", "4 × 32", "512 B"),
    ("LanguageModel",),
    ("embedding rows", RESIDUAL, "8 × 32 × 64", "bfloat16", "4 × 8 × 64", "4.0 KiB"),
    ("LanguageModel.enter dropout(x)", RESIDUAL, "8 × 32 × 64", "bfloat16", "4 × 8 × 64", "4.0 KiB"),
    (f"{LAYER} (one of 3 alike)",),
    (f"{LAYER}.0.attention relayout(x)", WHOLE, "8 × 32 × 64", "bfloat16", "4 × 32 × 64", "16.0 KiB"),
    (f"{LAYER}.0.attention.attended q", QUERIES, "8 × 32 × 8 × 8", "bfloat16", "4 × 32 × 2 × 8", "4.0 KiB"),
    (f"{LAYER}.0.attention.attended k", KEYS, "8 × 32 × 4 × 8", "bfloat16", "4 × 32 × 1 × 8", "2.0 KiB"),
    (f"{LAYER}.0.attention.attended v", KEYS, "8 × 32 × 4 × 8", "bfloat16", "4 × 32 × 1 × 8", "2.0 KiB"),
    (f"{LAYER}.0.attention.attended out", QUERIES, "8 × 32 × 8 × 8", "bfloat16", "4 × 32 × 2 × 8", "4.0 KiB"),
    (
        f"{LAYER}.0.attention.attended output(out)",
        RESIDUAL,
        "8 × 32 × 64",
        "bfloat16",
        "4 × 8 × 64",
        "4.0 KiB",
    ),
    (f"{LAYER}.1.mlp relayout(x)", WHOLE, "8 × 32 × 64", "bfloat16", "4 × 32 × 64", "16.0 KiB"),
    (
        *(f"{LAYER}.1.mlp.written h", "batch→fsdp, sequence, mlp→tensor", "8 × 32 × 128", "bfloat16"),
        *("4 × 32 × 32", "8.0 KiB"),
    ),
    (f"{LAYER}.1.mlp.written down(h)", RESIDUAL, "8 × 32 × 64", "bfloat16", "4 × 8 × 64", "4.0 KiB"),
    ("LanguageModel",),
    ("LanguageModel.leave relayout(x)", WHOLE, "8 × 32 × 64", "bfloat16", "4 × 32 × 64", "16.0 KiB"),
]
"""Of one microbatch of 8 rows, on 2 × 4 devices."""


@pytest.fixture
def llama(tmp_path):
    path = tmp_path / "llama.yaml"
    path.write_text(to_yaml(LLAMA))
    return str(path)


def activation_rows(printed):
    _, _, table = printed.partition("\nActivations of one microbatch (8 rows of 32 tokens)")
    lines = table.splitlines()[2:]
    return [
        tuple(cell.strip() for cell in line.strip().split("  ") if cell.strip())
        for line in lines
        if line.strip()
    ]


def test_activations_are_those_of_one_layer_in_the_order_in_which_it_makes_them(llama, capsys):
    main(["explain", llama, "--activations"])
    assert activation_rows(capsys.readouterr().out) == ROWS


def test_a_deeper_model_has_no_more_rows(llama, capsys):
    main(["explain", llama, "model.num_layers=12", "model.remat=full", "--activations"])
    names = [row[0].replace("of 12", "of 3") for row in activation_rows(capsys.readouterr().out)]
    assert names == [row[0] for row in ROWS]


def test_without_being_asked_it_speaks_of_parameters_only(llama, capsys):
    main(["explain", llama])
    printed = capsys.readouterr().out
    assert "embedding.weight" in printed
    assert "ctivation" not in printed


def made_by(**model):
    config = parse_config({**LLAMA, "model": LLAMA["model"] | model}).model
    batch = {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in token_batch(8, 32).items()}
    return activations_of(abstract_model(config), batch)


@pytest.mark.parametrize(
    ("name", "dtype", "moments"),
    [("adamw", "float32", "2 optimizer moments"), ("sgd", "float32", "1 optimizer moment:")]
    + [("muon", dtype, "1 or 2 optimizer moments") for dtype in ("float32", "bfloat16")],
)
def test_what_training_holds_is_counted_from_the_optimizers_state(name, dtype, moments, llama, capsys):
    overrides = [f"optimizer.name={name}", f"optimizer.moment_dtype={dtype}"]
    main(["explain", llama, "mesh.tensor=1", "mesh.fsdp=1", *overrides])
    printed = capsys.readouterr().out
    matrices = 3 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)
    others = 2 * 256 * 64 + 7 * 64
    first = {"float32": 4, "bfloat16": 2}[dtype]
    second = {"adamw": (4, 4), "sgd": (0, 0), "muon": (0, 4)}[name]
    held = matrices * (8 + first + second[0]) + others * (8 + first + second[1])
    assert f"with gradients and {moments}" in printed
    assert f": about {readable_bytes(held)} on a device" in printed


def test_a_unit_of_several_layers_shows_each_and_units_of_several_kinds_have_a_section_each():
    attention = LLAMA["model"]["attention"] | {"window": 16}
    made = made_by(num_layers=5, attention=attention, window_pattern=(True, False))
    sections = {
        section: [row.name.rpartition(" ")[0] for row in rows if row.name.endswith("relayout(x)")]
        for section, rows in itertools.groupby(made, key=lambda row: row.section)
        if section != "LanguageModel"
    }
    assert sections == {
        LAYER: [f"{LAYER}.0.attention", f"{LAYER}.1.mlp"],
        "decoder.segments.1 (one of 2 alike)": [
            f"decoder.segments.1.{place}.{mixer}" for place, mixer in enumerate(("attention", "mlp") * 2)
        ],
    }
    assert len({row.name for row in made}) == len(made)


def test_every_row_names_the_line_that_makes_it():
    codes = {row.name: row.code for row in made_by(max_positions=64)}
    assert codes[f"{LAYER}.0.attention.attended q"].startswith("models/common/attention/self_attention.py:")
    assert codes[f"{LAYER}.0.attention.attended q"].endswith(" Attention.attended")
    assert codes["LanguageModel.leave relayout(x)"].endswith(" TokenModel.leave")
    assert {"embedding rows", "positions rows"} <= codes.keys()


class Page(HTMLParser):
    """The text, tags and attributes of a page whose elements are closed as they were opened."""

    VOID = ("meta", "rect", "line")

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.attributes = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, *attribute) for attribute in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, *attribute) for attribute in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data.strip())


@pytest.mark.parametrize("devices", [8, 512])
def test_the_page_draws_every_array_and_loads_nothing(llama, tmp_path, capsys, devices):
    file = tmp_path / "page.html"
    main(
        [
            "explain",
            llama,
            "mesh.data=-1",
            "training.batch_size=256",
            f"--devices={devices}",
            f"--html={file}",
        ]
    )
    assert capsys.readouterr().out.splitlines()[-1] == f"written to {file}"
    text = file.read_text()
    page = Page(text)
    parameters = flatten(parameters_of(abstract_model(parse_config(LLAMA).model)))
    assert {*parameters, *(row[0] for row in ROWS)} <= {*page.texts}
    pictures = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert len(pictures) == 1 + len(parameters) + sum(len(row) > 1 for row in ROWS)
    assert "http" not in text
    assert "url(" not in text
    assert not [value for _, name, value in page.attributes if name in ("src", "href")]


def test_the_page_says_what_it_is_given_as_text(llama, tmp_path):
    file = tmp_path / "page.html"
    main(["explain", llama, "run_dir=<script>alert(1)</script>", f"--html={file}"])
    assert "<script" not in file.read_text()


@pytest.mark.parametrize("where", ["none/page.html", "."])
def test_a_page_that_cannot_be_written_is_refused_in_a_sentence(llama, tmp_path, capsys, where):
    with pytest.raises(SystemExit) as exit_:
        main(["explain", llama, "--html", str(tmp_path / where)])
    out, err = capsys.readouterr()
    assert exit_.value.code == 2
    assert out == ""
    assert err.startswith(f"mjx: error: cannot write {tmp_path / where}: ")


def test_an_array_is_a_rectangle_per_pair_of_dimensions_cut_as_it_is_sharded():
    mesh = {"data": 2, "fsdp": 2, "tensor": 4}
    queries = jax.ShapeDtypeStruct((8, 32, 8, 16), "float32")
    axes = ("batch", "sequence", "heads", "head_dim")
    drawn = draw(place("q", axes, queries, default_rules(), mesh, "activation"), mesh)
    tokens, features = drawn.rectangles
    assert (tokens.down.name, tokens.across.name) == ("batch", "sequence")
    assert [axis for _, axis in tokens.down.cuts] == ["fsdp", "data", "fsdp"]
    assert tokens.across.cuts == ()
    assert [axis for _, axis in features.down.cuts] == ["tensor"] * 3
    assert features.held[1] == pytest.approx(features.height / 4, abs=0.1)


def test_cuts_too_close_to_be_seen_are_left_out():
    mesh = {"fsdp": 512}
    rows = jax.ShapeDtypeStruct((4096,), "float32")
    (bar,) = draw(place("scale", ("embed",), rows, default_rules(), mesh, "parameter"), mesh).rectangles
    assert 8 < len(bar.across.cuts) < 64


def test_a_mesh_is_drawn_device_by_device_while_one_can_look_at_them():
    drawn = draw_mesh({"data": 1, "fsdp": 2, "context": 4, "tensor": 8})
    devices = [box for box in drawn.boxes if box.device]
    assert len(devices) == DRAWN_DEVICES
    assert devices[-1].title == "device 63: fsdp 1, context 3, tensor 7"
    for one in devices:
        assert not [
            other
            for other in devices
            if other is not one and abs(other.x - one.x) < one.width and abs(other.y - one.y) < one.height
        ]
    assert draw_mesh({"fsdp": 16, "tensor": 8}) is None
    assert [box.title for box in draw_mesh({"data": 1}).boxes] == ["device 0: alone"]
