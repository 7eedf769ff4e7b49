"""Progress on the terminal: a bar where there is one, else a line per record."""

import math
import time
from collections.abc import Callable, Mapping

from mjx.metrics.meter import StepReport
from mjx.words import duration, short_count

REFRESH_SECONDS = 0.1


class Progress:
    """Shows where training is. Nothing here waits for a device: it is fed with what `Meter` has fetched."""

    def __init__(self, total_steps: int, *, start_step: int = 0, enabled: bool = True, console=None):
        """`start_step`: updates done before this process began. `enabled=False` shows nothing, not even
        messages: for all processes but the first. `console`: a rich one, by default on standard error."""
        import rich.console

        self.total_steps = total_steps
        self.step = start_step
        self._enabled = enabled
        self._console = console or rich.console.Console(stderr=True, highlight=False)
        self._shown: dict[str, float] = {}
        self._live = None
        self._refreshed = -math.inf
        if enabled and self._console.is_terminal:
            import rich.live

            # No refresh thread: drawing happens between two dispatches, at most every REFRESH_SECONDS.
            self._live = rich.live.Live(
                console=self._console, get_renderable=self._render, auto_refresh=False, transient=False
            )
            self._live.start(refresh=True)

    def update(self, report: StepReport) -> None:
        """Show a step; a report with a record brings new means and speeds."""
        self.step = report.step
        self._shown |= report.record or {}
        if not self._enabled:
            return
        if self._live is None:
            if report.record is not None:
                width = len(str(self.total_steps))
                fields = "  ".join(self._fields())
                self._console.print(f"step {self.step:>{width}}/{self.total_steps}  {fields}", soft_wrap=True)
            return
        self._shown |= {
            k: v for k, v in report.metrics.items() if k in ("loss", "grad_norm", "learning_rate")
        }
        now = time.monotonic()
        if now - self._refreshed >= REFRESH_SECONDS or self.step >= self.total_steps:
            self._live.refresh()
            self._refreshed = now

    def say(self, message: str) -> None:
        """A line above the bar: a checkpoint written, a validation loss."""
        if self._enabled:
            self._console.print(message, soft_wrap=True, markup=False)

    def close(self) -> None:
        if self._live is not None:
            self._live.refresh()
            self._live.stop()
            self._live = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def _fields(self) -> list[str]:
        hidden = {"tflops_per_second"} if "mfu" in self._shown else set()
        fields = [
            said
            for name, show in FIELDS.items()
            if name in self._shown and name not in hidden and (said := show(self._shown[name]))
        ]
        if self._shown.get("updates_skipped"):
            fields.append(f"{self._shown['updates_skipped']:.0f} skipped")
        if "seconds_per_step" in self._shown:
            left = (self.total_steps - self.step) * self._shown["seconds_per_step"]
            fields.append(f"{duration(left)} left")
        return fields

    def _render(self):
        import rich.progress_bar
        import rich.table
        import rich.text

        share = self.step / max(self.total_steps, 1)
        head = f"{self.step}/{self.total_steps}"
        tail = f"{share:4.0%}"
        text = rich.text.Text("  ".join(self._fields()), no_wrap=True, overflow="ellipsis")
        room = self._console.width - len(head) - len(tail) - 2  # beside both, a blank on each side
        beside = room - text.cell_len - 2
        one_line = beside >= 10
        bar = rich.progress_bar.ProgressBar(
            total=max(self.total_steps, 1),
            completed=self.step,
            width=max(4, min(40, beside if one_line else room)),
        )
        grid = rich.table.Table.grid(padding=(0, 2))
        line = rich.table.Table.grid(padding=(0, 1))
        line.add_row(rich.text.Text(head, style="bold"), bar, rich.text.Text(tail, style="bold cyan"))
        if one_line:
            grid.add_row(line, text)
        else:  # a narrow terminal gets two lines
            grid.add_row(line)
            grid.add_row(text)
        return grid


FIELDS: Mapping[str, Callable[[float], str]] = {
    "loss": lambda v: f"loss {v:.4f}",
    "accuracy": lambda v: f"accuracy {v:.3f}",
    "tokens_per_second": lambda v: f"{short_count(v)} tokens/s",
    "data_seconds_per_step": lambda v: f"{v * 1000:.3g} ms waiting for data" if v > 0.005 else "",
    "mfu": lambda v: f"MFU {v:.1%}",
    "tflops_per_second": lambda v: f"{v:.3g} TFLOP/s",
    "grad_norm": lambda v: f"grad norm {v:.3f}",
    "learning_rate": lambda v: f"lr {v:.2e}",
}
"""Metric → how it is shown, in this order; empty: it is not."""
