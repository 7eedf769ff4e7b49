"""Pages of plans: every figure is on them, nothing outside of them is asked for, and they are whole HTML."""

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from mjx.parse import parse
from mjx.plan.closed_form import StepMemory
from mjx.plan.estimate import Estimate
from mjx.plan.read_step import NCCL_SHARE, Plan, StepTime
from mjx.plan.report.page import write_page, write_search_page
from mjx.plan.report.words import memory_parts, verdict
from mjx.plan.request import PlanRequest
from mjx.plan.search import Candidate, Result, Search
from mjx.words import readable_bytes

GIB = 2**30
ALONE = {"meta", "link", "br", "img", "input", "hr"}
LARGEST = {
    "bytes": 3 * GIB,
    "array": "bf16[32,8,1024,4096]",
    "role": "kept",
    "part": "forward",
    "name": "decoder.0.<mlp>",
    "code": "models/x.py:7 f.<listcomp> & g",
}
ROW = {
    "kind": "all-gather",
    "arrays": "bf16[16,64]",
    "axes": ["fsdp"],
    "group_size": 8,
    "reach": "network",
    "count": 32,
    "wire_bytes": 2e9,
    "asynchronous": True,
    "part": "forward",
    "code": "models/common/mlp.py:112 <lambda>",
    "term": "weights",
}
TREE = {
    "recipe": "configs/gpt/a&b.yaml",
    "overrides": ["model.remat=full"],
    "gpu": "NVIDIA H100 80GB HBM3",
    "nodes": 8,
    "gpus_per_node": 8,
    "mesh": {"data": 1, "fsdp": 8, "tensor": 8},
    "compiler": "gpu",
    "products": "both",
    "versions": {"mjx": "0.1.0", "jax": "0.10.2"},
    "parameters": 8_030_261_248,
    "batch_size": 256,
    "microbatches": 2,
    "sequence_length": 8192,
    "remat": "full",
    "memory": {
        "parameters": 4 * GIB,
        "optimizer": 8 * GIB,
        "batch": 3 * 2**20,
        "arguments": 3 * 2**20,
        "gradients": 5 * GIB,
        "kept": 6 * GIB,
        "temporaries": 7 * GIB,
        "workspace": 128 * 2**20,
        "exact": True,
        "pool": 72 * GIB,
        "total": 79 * GIB,
        "reserve": 2 * GIB,
        "closed_form": 16 * GIB,
        "largest": [LARGEST],
    },
    "flops": {"compiled": 5e14, "attention": 8e13, "model": 4e14, "kernels": {"scan<bf16>": 12}},
    "traffic": [
        ROW,
        ROW
        | {"asynchronous": False, "reach": "node", "term": "tensor", "axes": ["tensor"], "wire_bytes": 9e10},
        ROW | {"part": "update", "term": None, "kind": "all-reduce", "wire_bytes": 5e7},
    ],
    "checks": [{"name": "weights", "axes": ["fsdp"], "closed_form": 1.6e9, "compiled": 2e9}],
    "uncounted": ["decoder.segments.0.1.mixer<3>.taps (layers × conv × inner)"],
    "decided": ["8 experts over expert: fixed, the least"],
    "exact_traffic": True,
    "utilization": 0.5,
    "time": {"at_peak": 0.5, "compute": 1.0, "node": 0.2, "network": 0.04, "exposed": 0.2},
    "lowering_seconds": 0.3,
    "compiling_seconds": 10.2,
    "peak_memory": 6e8,
}


class Tags(HTMLParser):
    """Reads a page; fails where a tag is not closed by its own."""

    def __init__(self, page):
        super().__init__()
        self.open, self.text, self.seen = [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ALONE:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data):
        self.text.append(data)


def plan_with(**changes):
    plan = parse(Plan, TREE, "plan")
    memory = dataclasses.replace(plan.memory, **changes.pop("memory", {}))
    return dataclasses.replace(plan, memory=memory, **changes)


def page_of(folder, plan, advice=()):
    write_page(folder / "plan.html", plan, advice)
    return (folder / "plan.html").read_text(encoding="utf-8")


def candidate(fsdp, kept, compute, remat="none"):
    step = StepMemory(kept=kept, gradients=GIB, layer=GIB, head=GIB)
    time = StepTime(at_peak=compute / 2, compute=compute, node=0.1, network=0.2, exposed=0.05)
    return Candidate(
        overrides=(f"mesh.fsdp={fsdp}", f"model.remat={remat}"),
        mesh={"data": 64 // fsdp, "fsdp": fsdp, "tensor": 1},
        microbatches=1,
        remat=remat,
        estimate=Estimate(
            parameters=GIB, optimizer=2 * GIB, step=step, pool=72 * GIB, time=time, uncounted=()
        ),
    )


def search_page(folder, *results):
    others = [candidate(2, 200 * GIB, 0.8), candidate(4, 30 * GIB, 1.5, "full")]
    found = Search(candidates=(*(r.candidate for r in results), *others), results=results)
    request = PlanRequest(recipe="configs/my recipe.yaml", overrides=("training.batch_size=256",), nodes=8)
    write_search_page(folder / "search.html", request, found)
    return (folder / "search.html").read_text(encoding="utf-8")


def text_of(page):
    return re.sub(r"\s+", " ", " ".join(Tags(page).text))


def assert_self_contained(page):
    assert "http://" not in page
    assert "https://" not in page
    assert "@import" not in page
    tags = Tags(page).seen
    assert not [tag for tag, _ in tags if tag in ("script", "link", "img", "iframe", "object")]
    assert not [attributes for _, attributes in tags if {"src", "href", "xlink:href"} & attributes.keys()]
    assert set(re.findall(r"url\(([^)]*)\)", page)) <= {"#stripes", "#reserved"}


@pytest.mark.parametrize("kind", ["plan", "search"])
def test_a_page_is_whole_and_asks_for_nothing_outside(kind, tmp_path):
    result = Result(candidate=candidate(8, 20 * GIB, 1.0), plan=plan_with())
    assert_self_contained(page_of(tmp_path, plan_with()) if kind == "plan" else search_page(tmp_path, result))


def test_every_figure_of_memory_is_shown(tmp_path):
    plan = plan_with()
    text = text_of(page_of(tmp_path, plan))
    parts = memory_parts(plan.memory)
    assert len(parts) == 7
    for name, size, remark in parts:
        assert name in text
        assert readable_bytes(size) in text
        assert remark in text
    for size in (plan.memory.needed, plan.memory.pool, plan.memory.reserve, plan.memory.total):
        assert readable_bytes(size) in text


@pytest.mark.parametrize(
    ("memory", "said"),
    [({}, "fits"), ({"kept": 90.0 * GIB}, "does not fit"), ({"pool": 78.0 * GIB}, "does not fit")],
    ids=["fits", "too much", "no reserve"],
)
def test_the_verdict_is_said_with_its_sum_and_advice(memory, said, tmp_path):
    plan = plan_with(memory=memory)
    page = page_of(tmp_path, plan, ["model.remat=full would need about 33.1 GiB"])
    assert f">{said}</span>" in page
    assert verdict(plan.memory).split(": ", 1)[1] in text_of(page)
    assert "model.remat=full would need about 33.1 GiB" in page


def test_names_of_code_are_escaped(tmp_path):
    page = page_of(tmp_path, plan_with(), ["a <b> & c"])
    for written in (
        "decoder.0.&lt;mlp&gt;",
        "f.&lt;listcomp&gt; &amp; g",
        "&lt;lambda&gt;",
        "scan&lt;bf16&gt;",
        "products with decoder.segments.0.1.mixer&lt;3&gt;.taps (layers × conv × inner)",
        "a &lt;b&gt; &amp; c",
    ):
        assert written in page
    assert "<lambda>" not in page
    assert "a&amp;b.yaml" in page


def test_lanes_of_time_end_with_the_step(tmp_path):
    """0.2 s exposed, then 1 s of products, which 0.04 s of hidden collectives slow down."""
    page = page_of(tmp_path, plan_with())
    step = 0.2 + 1.0 + NCCL_SHARE * 0.04
    assert f"{step:.2f} s" in text_of(page)
    timeline = page[page.index("Time of a step") : page.index("Collectives")]
    bars = re.findall(r'<rect class="(\w+)[^"]*" x="([\d.]+)%" y="0" width="([\d.]+)%"', timeline)
    ends = {kind: float(start) + float(width) for kind, start, width in bars}
    assert ends["slowed"] == pytest.approx(100, abs=0.01)
    assert ends["step"] == pytest.approx(100, abs=0.01)
    assert ends["node"] == ends["waiting"] == pytest.approx(100 * 0.2 / step, abs=0.01)
    assert ends["network"] == pytest.approx(100 * 0.24 / step, abs=0.01)


def test_exposed_collectives_are_striped_and_said_so(tmp_path):
    page = page_of(tmp_path, plan_with())
    assert "forward, tensor parallelism&#39;s activations, exposed: 90.00 GB" in page
    assert "forward, weights, gathered, hidden: 2.00 GB" in page
    assert "update, not in the closed form, hidden: 50.00 MB" in page
    assert 'fill="url(#stripes)"' in page


def test_one_gpu_sends_nothing(tmp_path):
    time = StepTime(at_peak=0.5, compute=1.0, node=0.0, network=0.0, exposed=0.0)
    page = page_of(tmp_path, plan_with(traffic=(), checks=(), time=time, mesh={"data": 1}, nodes=1))
    assert_self_contained(page)
    assert "nothing" in text_of(page)
    assert "one device" in text_of(page)


def test_upper_bounds_are_called_so(tmp_path):
    changes = {"compiler": "cpu", "exact_traffic": False}
    text = text_of(page_of(tmp_path, plan_with(memory={"exact": False}, **changes)))
    assert "an upper bound, by XLA's CPU backend" in text
    assert "By XLA's CPU backend, which does not scatter sums: an upper bound." in text
    assert "A loop of unknown length was counted once" in text


def test_a_search_names_the_command_of_the_fastest_that_fits(tmp_path):
    too_large = Result(candidate=candidate(16, 40 * GIB, 0.9), plan=plan_with(memory={"kept": 90.0 * GIB}))
    died = Result(candidate=candidate(32, 10 * GIB, 1.2), plan=None, failure="the compiler <died> & left")
    best = Result(candidate=candidate(8, 20 * GIB, 1.0), plan=plan_with())
    page = search_page(tmp_path, best, too_large, died)
    text = text_of(page)
    command = "'configs/my recipe.yaml' training.batch_size=256 mesh.fsdp=8 model.remat=none"
    assert f"mjx train {command}" in text
    assert "the compiler &lt;died&gt; &amp; left" in page
    assert "does not fit" in text
    assert "pool 72.0 GiB" in text
    dots = [attributes for tag, attributes in Tags(page).seen if tag == "circle" and "cy" in attributes]
    assert len([d for d in dots if d["class"].startswith("dot") and "%" in d["cx"]]) == 5
    assert len([d for d in dots if "faded" in d["class"]]) == 1
    assert len(re.findall('class="number-text"', page)) == 3


def test_a_search_says_that_nothing_fits(tmp_path):
    too_large = Result(candidate=candidate(16, 40 * GIB, 0.9), plan=plan_with(memory={"kept": 90.0 * GIB}))
    text = text_of(search_page(tmp_path, too_large))
    assert "nothing that was compiled fits" in text
    assert "mjx train" not in text


def test_numbers_of_compiled_ways_do_not_lie_on_each_other(tmp_path):
    same = [Result(candidate=candidate(8, 20 * GIB, 1.0), plan=plan_with()) for _ in range(4)]
    page = search_page(tmp_path, *same)
    at = re.findall(r'<circle class="number-disc[^"]*" cx="(-?\d+)" cy="(-?\d+)"', page)
    assert len(set(at)) == 4
