"""A plan, or a search for one, as a page: one file of HTML, with nothing outside it.

Places in pictures are percents of their width, so that a page may be as narrow as a phone's.
"""

import dataclasses
import math
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from mjx.plan.program.collectives import Reach
from mjx.plan.read_step import NCCL_SHARE, Memory, Plan, StepTime, Traffic
from mjx.plan.report.words import memory_parts, one_way, outside_closed_form, traffic_groups, verdict
from mjx.plan.request import PlanRequest
from mjx.plan.search import Candidate, Result, Search
from mjx.sharding.axes import MESH_AXES
from mjx.words import count_words, mesh_words, percent, readable_bytes, readable_gigabytes, readable_seconds

REACHES: dict[Reach, str] = {"node": "NVLink, inside of nodes", "network": "network, between nodes"}
TERMS = {
    "weights": "weights, gathered",
    "gradients": "gradients, summed and scattered",
    "replicas": "gradients, summed over replicas",
    "tensor": "tensor parallelism's activations",
    "other": "not in the closed form",
}
_NEXT = 20
"""Ways that were not compiled, but are listed."""
_CHARACTER = 6.8
"""Width of one in a bar's label."""
_WIDE, _NARROW = 690, 300
"""Least widths of a picture in pixels: on a screen of 1000, and on a phone."""
_BADGE = 19
"""Least distance between the numbers of compiled ways."""


def write_page(path: Path, plan: Plan, advice: Iterable[str] = ()) -> None:
    """Pictures and tables of a plan; `advice` stands below the verdict."""
    text = _render(
        "page.html",
        plan=plan,
        advice=list(advice),
        memory=_memory(plan.memory),
        parts=memory_parts(plan.memory),
        panels=_traffic(plan),
        terms={name: words for name, words in TERMS.items() if _sends(plan, name)},
        timeline=_timeline(plan),
        groups=traffic_groups(plan),
        checks=_checks(plan),
        outside=outside_closed_form(plan),
    )
    path.write_text(text, encoding="utf-8")


def write_search_page(path: Path, request: PlanRequest, found: Search) -> None:
    """Pictures and tables of what was compiled, and of all that closed forms say."""
    done = {result.candidate.overrides for result in found.results}
    best = next((r for r in found.results if r.plan is not None and r.plan.memory.fits), None)
    text = _render(
        "search.html",
        request=request,
        found=found,
        scatter=_scatter(found) if found.candidates else None,
        results=_with_bars(found.results),
        following=[c for c in found.fitting if c.overrides not in done][:_NEXT],
        best=best,
        command=None if best is None else _command(request, best.candidate),
    )
    path.write_text(text, encoding="utf-8")


def _render(template: str, **values: Any) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bytes": readable_bytes,
        "gigabytes": readable_gigabytes,
        "seconds": readable_seconds,
        "percent": percent,
        "count": count_words,
        "one_way": one_way,
        "mesh": mesh_words,
        "place": lambda share: f"{share:.3f}%",
    }
    return environment.get_template(template).render(mesh_axes=MESH_AXES, **values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segment:
    """A part of a bar; places are percents of the bar's width."""

    start: float
    width: float
    kind: str
    """Its colour: a class of the page."""
    title: str
    """Shown under the pointer."""
    label: str = ""
    exposed: bool = False

    @property
    def shown(self) -> Literal["always", "wide", "never"]:
        """On which pages the label fits."""
        needed = _CHARACTER * len(self.label) + 8
        if not self.label or needed > _WIDE * self.width / 100:
            return "never"
        return "always" if needed <= _NARROW * self.width / 100 else "wide"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lane:
    """A bar with its name and its sum."""

    name: str
    figure: str
    segments: tuple[Segment, ...]
    remark: str = ""


Ticks = list[tuple[float, str]]
"""(percent, label)."""


_Part = tuple[float, dict[str, Any]]
"""A size, and what a segment of it says."""


def _part(kind: str, label: str, size: float, title: str = "", *, exposed: bool = False) -> _Part:
    """Without a title, one of seconds."""
    title = title or f"{label}: {readable_seconds(size)}"
    return size, {"kind": kind, "label": label, "title": title, "exposed": exposed}


def _row(parts: Iterable[_Part], scale: float, start: float = 0.0) -> tuple[Segment, ...]:
    """Segments side by side, without those of nothing."""
    segments = []
    for size, words in parts:
        if size > 1e-12 * scale:  # what rounding leaves is nothing
            segments.append(Segment(start=100 * start / scale, width=100 * size / scale, **words))
            start += size
    return tuple(segments)


def _ticks(limit: float, unit: str, wanted: int = 5) -> Ticks:
    """From 0 to the limit, at 1, 2 or 5 times a power of ten."""
    step = _round_step(limit / wanted)
    digits = max(0, -math.floor(math.log10(step)))
    places = [step * n for n in range(math.floor(limit / step + 1e-9) + 1)]
    labels = [f"{p:,.{digits}f}" if p else "0" for p in places]
    labels[-1] += unit
    return [(100 * p / limit, label) for p, label in zip(places, labels, strict=True)]


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * n for n in (1, 2, 5, 10) if power * n >= step * (1 - 1e-9))


def _memory(memory: Memory) -> dict[str, Any]:
    scale = max(memory.total, memory.pool, memory.needed)
    parts = [
        _part(
            name.split()[0].removesuffix("'s").lower(),
            f"{size / 2**30:.1f}",
            size,
            f"{name}: {readable_bytes(size)}",
        )
        for name, size, _ in memory_parts(memory)
    ]
    badge, _, words = verdict(memory).partition(": ")
    return {
        "badge": badge,
        "verdict": words,
        "segments": _row(parts, scale),
        "ticks": _ticks(scale / 2**30, " GiB"),
        "pool": 100 * memory.pool / scale,
        "total": 100 * memory.total / scale,
        "needed": 100 * memory.needed / scale,
        "reserve": 100 * min(memory.reserve, memory.total) / scale,
    }


def _term(row: Traffic) -> str:
    return row.term or "other"


def _sends(plan: Plan, term: str) -> float:
    return sum(row.wire_bytes for row in plan.traffic if _term(row) == term)


def _traffic(plan: Plan) -> list[dict[str, Any]]:
    """NVLink's and the network's panel: parts of the step as lanes, terms as colours, exposed ones apart."""
    panels = []
    for reach, title in REACHES.items():
        rows = [row for row in plan.traffic if row.reach == reach]
        if not any(row.wire_bytes for row in rows):
            continue
        sums = {
            part: sum(row.wire_bytes for row in rows if row.part == part)
            for part in ("forward", "recompute", "backward", "update")
        }
        scale = max(sums.values())
        lanes = [
            Lane(name=part, figure=readable_gigabytes(total), segments=_terms(rows, part, scale))
            for part, total in sums.items()
            if total
        ]
        unit, factor = ("GB", 1e9) if scale >= 1e8 else ("MB", 1e6)
        panels.append(
            {
                "reach": reach,
                "title": title,
                "bytes": plan.wire_bytes(reach),
                "seconds": getattr(plan.time, reach),
                "exposed": sum(row.wire_bytes for row in rows if not row.asynchronous),
                "lanes": lanes,
                "ticks": _ticks(scale / factor, f" {unit}", wanted=4),
            }
        )
    return panels


def _terms(rows: Sequence[Traffic], part: str, scale: float) -> tuple[Segment, ...]:
    parts = []
    for term, words in TERMS.items():
        for hidden in (True, False):
            size = sum(
                row.wire_bytes
                for row in rows
                if row.part == part and _term(row) == term and row.asynchronous == hidden
            )
            state = "hidden" if hidden else "exposed"
            title = f"{part}, {words}, {state}: {readable_gigabytes(size)}"
            parts.append(_part(term, "", size, title, exposed=not hidden))
    return _row(parts, scale)


def _timeline(plan: Plan) -> dict[str, Any]:
    """Exposed collectives first, then the products with all that hides behind them."""
    time, flops = plan.time, plan.flops
    scale, exposed = time.estimate, time.exposed
    asked = time.compute * min(1.0, flops.model / flops.compiled)
    hidden = time.node + time.network - exposed
    slowed = NCCL_SHARE * hidden
    products = [
        _part("products", "that the model asks for", asked),
        _part("recompute", "recomputation", time.compute - asked),
        _part("slowed", "slowed down by NCCL", slowed),
    ]
    lanes = [
        Lane(
            name="products",
            figure=readable_seconds(time.compute),
            remark=f"at {percent(plan.utilization)} of peak",
            segments=_row(products, scale, start=exposed),
        )
    ]
    apart, beside = 0.0, exposed
    names: dict[Reach, str] = {"node": "NVLink", "network": "network"}
    for reach, name in names.items():
        seconds, sent = getattr(time, reach), plan.wire_bytes(reach)
        alone = sum(r.wire_bytes for r in plan.traffic if r.reach == reach and not r.asynchronous)
        waited = seconds * alone / sent if sent else 0.0
        behind = seconds - waited
        lanes.append(
            Lane(
                name=name,
                figure=readable_seconds(seconds) if seconds else "nothing",
                remark=f"{readable_gigabytes(sent)} sent" if sent else "",
                segments=_row([_part(reach, "exposed", waited, exposed=True)], scale, start=apart)
                + _row([_part(reach, "hidden", behind)], scale, start=beside),
            )
        )
        apart, beside = apart + waited, beside + behind
    bound = "products" if time.compute + slowed >= hidden else "collectives"
    whole = [
        _part("waiting", "exposed", exposed, exposed=True),
        _part("step", f"as long as the {bound} take", scale - exposed),
    ]
    lanes.append(
        Lane(
            name="step",
            figure=readable_seconds(scale),
            remark=f"{percent(exposed / scale)} of it exposed",
            segments=_row(whole, scale),
        )
    )
    unit, factor = (" s", 1.0) if scale >= 1 else (" ms", 1e-3)
    return {
        "lanes": lanes,
        "ticks": _ticks(scale / factor, unit),
        "exposed": 100 * exposed / scale,
        "bound": bound,
        "recomputed": time.compute > asked,
        "slowed": slowed > 0,
    }


def _checks(plan: Plan) -> list[dict[str, Any]]:
    """Sent bytes term by term, then memory."""
    memory = plan.memory
    rows: list[tuple[str, str, float, float, Callable[[float], str]]]
    rows = [(c.name, " × ".join(c.axes), c.closed_form, c.compiled, readable_gigabytes) for c in plan.checks]
    what = "activations, gradients and temporaries"
    rows.append((what, "", memory.closed_form, memory.allocated, readable_bytes))
    return [
        {
            "name": name,
            "along": along,
            "closed_form": readable(closed_form),
            "compiled": readable(compiled),
            "ratio": compiled / closed_form,
            # A scale from half to double, with 1 in its middle.
            "place": 50 + 50 * max(-1.0, min(1.0, math.log2(max(compiled / closed_form, 0.01)))),
        }
        for name, along, closed_form, compiled, readable in rows
        if closed_form
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Axis:
    """Logarithmic."""

    low: float
    high: float
    marked: Sequence[float]

    def place(self, value: float) -> float:
        """In percent."""
        return 100 * math.log(value / self.low) / math.log(self.high / self.low)

    @property
    def ticks(self) -> Ticks:
        return [(self.place(value), f"{value:.6g}") for value in self.marked]


def _axis(values: Iterable[float], wanted: int) -> Axis:
    values = list(values)
    low, high = min(values) / 1.06, max(values) * 1.06
    if high / low > 4:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        places = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    else:
        step = _round_step((high - low) / wanted)
        places = [step * n for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return Axis(low=low, high=high, marked=[place for place in places if low <= place <= high])


def _scatter(found: Search) -> dict[str, Any]:
    """Every candidate by its memory and its time."""
    made = [(result.candidate, result.plan) for result in found.results]
    pool = found.candidates[0].estimate.pool / 2**30
    sizes = [c.estimate.needed / 2**30 for c in found.candidates]
    sizes += [plan.memory.needed / 2**30 for _, plan in made if plan is not None]
    times = [c.estimate.time.estimate for c in found.candidates]
    times += [plan.time.estimate for _, plan in made if plan is not None]
    across, up = _axis([*sizes, pool], 6), _axis(times, 5)

    def at(size: float, seconds: float) -> tuple[float, float]:
        return across.place(size / 2**30), 100 - up.place(seconds)

    dots = [(*at(c.estimate.needed, c.estimate.time.estimate), c) for c in found.candidates]
    marks: list[dict[str, Any]] = []
    for candidate, plan in made:
        guess = at(candidate.estimate.needed, candidate.estimate.time.estimate)
        x, y = guess if plan is None else at(plan.memory.needed, plan.time.estimate)
        marks.append({"x": x, "y": y, "guess": guess, "candidate": candidate, "plan": plan})
    _place_badges(marks)
    return {
        "dots": dots,
        "marks": marks,
        "across": across.ticks,
        "up": [(100 - place, label) for place, label in up.ticks],
        "pool": across.place(pool),
        "pool_words": f"pool {pool:.1f} GiB",
    }


def _place_badges(marks: list[dict[str, Any]], height: float = 420) -> None:
    """Each number beside its mark, away from marks and numbers that are there, however narrow the page."""
    offsets = [
        (round(radius * math.cos(angle)), round(radius * math.sin(angle)))
        for radius in (19, 30, 42, 56)
        for angle in (math.radians(degrees) for degrees in (-45, -135, 45, 135, -90, 90, 0, 180))
    ]
    taken: list[tuple[float, float, float, float]] = [(m["x"], m["y"], 0.0, 0.0) for m in marks]

    def gap(mark: dict[str, Any], offset: tuple[int, int]) -> float:
        def distance(width: float, x: float, y: float, dx: float, dy: float) -> float:
            left, top = (mark["x"] - x) * width / 100, (mark["y"] - y) * height / 100
            return math.hypot(left + offset[0] - dx, top + offset[1] - dy)

        left, top = mark["x"] * _NARROW / 100 + offset[0], mark["y"] * height / 100 + offset[1]
        if not (10 <= left <= _NARROW - 10 and 10 <= top <= height - 10):
            return 0.0
        return min(distance(width, *other) for width in (_NARROW, _WIDE) for other in taken)

    for mark in marks:
        free = (offset for offset in offsets if gap(mark, offset) >= _BADGE - 1)
        mark["dx"], mark["dy"] = next(free, None) or max(offsets, key=lambda offset: gap(mark, offset))
        taken.append((mark["x"], mark["y"], mark["dx"], mark["dy"]))


def _with_bars(results: Sequence[Result]) -> list[tuple[Result, tuple[Segment, ...]]]:
    """With the parts of each step's time."""
    longest = max((r.plan.time.estimate for r in results if r.plan is not None), default=1.0)
    return [(r, () if r.plan is None else _time_bar(r.plan.time, longest)) for r in results]


def _time_bar(time: StepTime, longest: float) -> tuple[Segment, ...]:
    slowed = NCCL_SHARE * (time.node + time.network - time.exposed)
    beyond = time.estimate - time.exposed - time.compute - slowed
    parts = [
        _part("waiting", "exposed", time.exposed, exposed=True),
        _part("products", "products", time.compute),
        _part("slowed", "slowed down by NCCL", slowed),
        _part("network", "collectives beyond the products", beyond),
    ]
    return _row(parts, longest)


def _command(request: PlanRequest, candidate: Candidate) -> str:
    return shlex.join(["mjx", "train", request.recipe, *request.overrides, *candidate.overrides])
