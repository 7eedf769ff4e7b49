"""The picture of a run's loss, drawn from its metrics.jsonl."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mjx.errors import InputError
from mjx.metrics.sinks import METRICS_FILE, read_metrics

VALIDATION = "validation_"
"""How the metrics of an evaluation begin."""
VALIDATION_LOSS = f"{VALIDATION}loss"
"""The metric of an evaluation; `validation_loss/NAME` where a run has validation sets with names."""

SMOOTHING = 0.02
"""Share of the run that one point of the smoothed curve, and the loss in the subtitle, stand for."""

_INK, _GRID, _TRAIN = "#1f2933", "#e4e7eb", "#2563eb"
_VALIDATION = ("#d9480f", "#087f5b", "#862e9c", "#c2255c", "#5f3dc4")


def draw_loss_curve(run_folder: str | Path, *, title: str | None = None) -> Path:
    """Write `loss.png` beside the run's metrics.jsonl and return its path.

    Raises:
        InputError: nothing with a loss has been logged.
    """
    import matplotlib.figure  # a Figure without pyplot: no window, no global state, any thread

    folder = Path(run_folder)
    records = read_metrics(folder / METRICS_FILE)
    train = _points(records, "loss")
    names = sorted({key for r in records for key in r if is_validation_loss(key)})
    validation = {name: points for name in names if (points := _points(records, name))}
    if not train and not validation:
        raise InputError(f"{folder / METRICS_FILE} has no record with a loss: there is nothing to draw")

    figure = matplotlib.figure.Figure(figsize=(9, 5.2), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    if train:
        steps, losses = zip(*train, strict=True)
        if len(train) >= 60:
            axes.plot(steps, losses, color=_TRAIN, alpha=0.28, linewidth=0.9)
            axes.plot(*smoothed(steps, losses), color=_TRAIN, linewidth=2, label="training, smoothed")
        else:
            marker = "o" if len(train) < 25 else ""
            axes.plot(
                steps, losses, color=_TRAIN, linewidth=1.8, marker=marker, markersize=3, label="training"
            )
    for i, (name, points) in enumerate(validation.items()):
        _, _, part = name.partition("/")
        color = _VALIDATION[i % len(_VALIDATION)]
        label = f"validation, {part}, {points[-1][1]:.3f}" if part else "validation"
        axes.plot(
            *zip(*points, strict=True), color=color, linewidth=1.2, marker="o", markersize=4.5, label=label
        )

    everything = [value for points in (train, *validation.values()) for _, value in points]
    _scale(axes, train or next(iter(validation.values())), everything)
    _dress(axes, title or folder.resolve().name, _subtitle(train, validation, records))
    path = folder / "loss.png"
    figure.savefig(path)
    return path


def is_validation_loss(metric: str) -> bool:
    """Whether it is the loss of a validation set."""
    return metric.partition("/")[0] == VALIDATION_LOSS


def smoothed(steps: Sequence[int], losses: Sequence[float]) -> tuple[list[float], list[float]]:
    """At most 400 points of the curve without its noise: medians around each, so that a spike leaves no
    trace, in windows that narrow towards the steep beginning, so that the fall is not flattened."""
    half = max(1, round(SMOOTHING * len(losses) / 2))
    centers = range(len(losses))
    if len(losses) > 400:
        centers = [round(i * (len(losses) - 1) / 399) for i in range(400)]
    medians = [statistics.median(losses[i - min(half, i) : i + min(half, i) + 1]) for i in centers]
    means = [statistics.fmean(medians[i - min(2, i) : i + min(2, i) + 1]) for i in range(len(medians))]
    return [float(steps[i]) for i in centers], means


def _points(records: list[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    return [(r["step"], float(r[name])) for r in records if isinstance(r.get(name), int | float)]


def _scale(axes: Any, main: list[tuple[int, float]], everything: list[float]) -> None:
    """Logarithmic where the loss falls to less than a third; a spike or two may leave the picture."""
    import matplotlib.ticker

    low, high = min(everything), max(everything)
    if low > 0 and high / low > 3:
        axes.set_yscale("log")
        ticks = matplotlib.ticker.LogLocator(base=10, subs=(1, 1.5, 2, 3, 4, 5, 7))
        axes.yaxis.set_major_locator(ticks)
        axes.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda v, _: f"{v:g}"))
        axes.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    settled = sorted(value for _, value in main[len(main) // 10 :])
    if settled and (roof := max(settled[int(0.999 * (len(settled) - 1))], main[0][1], low)) < high / 1.5:
        axes.set_ylim(top=roof * 1.08)
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:,.0f}"))


def _subtitle(train: Any, validation: dict[str, Any], records: list[dict[str, Any]]) -> str:
    parts = []
    if train:
        recent = [value for _, value in train[-max(1, round(SMOOTHING * len(train))) :]]
        parts.append(f"training loss {math.fsum(recent) / len(recent):.4f} at step {train[-1][0]:,}")
    if list(validation) == [VALIDATION_LOSS]:
        step, best = min(validation[VALIDATION_LOSS], key=lambda point: point[1])
        parts.append(f"best validation loss {best:.4f} at step {step:,}")
    skipped = sum(r.get("updates_skipped") or 0 for r in records)
    if skipped:
        parts.append(f"{skipped:.0f} update{'s' if skipped > 1 else ''} skipped")
    return "  ·  ".join(parts)


def _dress(axes: Any, title: str, subtitle: str) -> None:
    name = axes.set_title(title, loc="left", fontsize=15, fontweight="bold", color=_INK, pad=26)
    axes.text(0, 1.025, subtitle, transform=axes.transAxes, fontsize=10, color=_INK, alpha=0.75)
    axes.set_xlabel("step", color=_INK)
    axes.set_ylabel(
        "loss (nats per token)" + (", log scale" if axes.get_yscale() == "log" else ""), color=_INK
    )
    axes.grid(color=_GRID, linewidth=0.9)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#9aa5b1")
    axes.tick_params(colors=_INK, labelsize=10)
    look = {"facecolor": "white", "edgecolor": "none", "framealpha": 1, "labelcolor": _INK}
    legend = axes.legend(loc="best", fontsize=10.5, **look)
    for text in (name, *legend.get_texts()):  # the user's, whose dollar signs are no mathematics
        text.set_parse_math(False)
