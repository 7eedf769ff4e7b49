import io

import pytest
import rich.console

from mjx.metrics.meter import StepReport
from mjx.metrics.progress import Progress

RECORD = dict(
    loss=3.21541,
    tokens_per_second=41234.0,
    mfu=0.314,
    tflops_per_second=12.0,
    grad_norm=0.8123,
    learning_rate=2.94e-4,
    seconds_per_step=0.5,
    updates_skipped=0.0,
)


def report(step, record=None, loss=3.0):
    return StepReport(step, dict(loss=loss, grad_norm=0.5, learning_rate=1e-4), record)


def console(terminal, width=120):
    return rich.console.Console(
        file=io.StringIO(), force_terminal=terminal, width=width, highlight=False, _environ={}
    )


def test_without_a_terminal_each_record_is_one_plain_line():
    out = console(terminal=False, width=40)
    with Progress(1000, console=out) as progress:
        progress.update(report(119))
        progress.update(report(120, RECORD))
        progress.say("checkpoint [120] written")
    assert out.file.getvalue().splitlines() == [
        "step  120/1000  loss 3.2154  41.2k tokens/s  MFU 31.4%  grad norm 0.812  lr 2.94e-04  7:20 left",
        "checkpoint [120] written",
    ]


def test_where_the_peak_is_unknown_the_rate_of_flops_is_shown_and_skips_are_told():
    out = console(terminal=False)
    record = {k: v for k, v in RECORD.items() if k != "mfu"} | {"updates_skipped": 2.0}
    with Progress(1000, console=out) as progress:
        progress.update(report(120, record))
    line = out.file.getvalue()
    assert "12 TFLOP/s" in line
    assert "MFU" not in line
    assert "2 skipped" in line


@pytest.mark.parametrize("width", [70, 140])
def test_on_a_terminal_the_bar_moves_with_every_step_and_messages_stand_above_it(width):
    out = console(terminal=True, width=width)
    with Progress(200, start_step=50, console=out) as progress:
        for step in range(51, 201):
            progress.update(report(step, RECORD if step % 10 == 0 else None, loss=step / 100))
            if step == 60:
                progress.say("validation loss 2.5")
    text = out.file.getvalue()
    assert "50/200" in text
    assert "200/200" in text
    assert "loss 2.0000" in text
    assert "validation loss 2.5" in text
    assert "100%" in text


def test_on_a_terminal_many_fast_steps_are_drawn_a_few_times_only():
    out = console(terminal=True)
    with Progress(10**6, console=out) as progress:
        for step in range(1, 5001):
            progress.update(report(step))
    assert out.file.getvalue().count("/1000000") < 100


def test_a_progress_that_is_off_shows_nothing():
    out = console(terminal=False)
    with Progress(1000, enabled=False, console=out) as progress:
        progress.update(report(120, RECORD))
        progress.say("hello")
    assert out.file.getvalue() == ""
