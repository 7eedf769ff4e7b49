"""A loss that is no number: the run stops with a good checkpoint, or leaves the step out and goes on."""

import math

import numpy as np
import pytest
from running import changed, losses, mjx, overrides, records, saved_arrays, saved_steps

from mjx.config import parse_config
from mjx.run.loop import train
from mjx.training.non_finite import NonFiniteError
from mjx.training.trainer import Trainer

BAD_STEP = 7


@pytest.fixture
def plain(tree, tmp_path):
    """The recipe without dropout, which compiles sooner, and a run folder of its own."""
    return changed(
        tree,
        model__dropout=0.0,
        model__attention__dropout=0.0,
        training__evaluation_interval=None,
        checkpoint__interval=5,
        logging__progress=False,
        run_dir=str(tmp_path / "run"),
    )


def _spoil(monkeypatch, first: int, last: float) -> None:
    """The batches of these steps have weights that are not finite."""
    place, count = Trainer.place, [0]

    def spoil(self, batch):
        count[0] += 1
        if first <= count[0] <= last:
            batch = {**batch, "loss_mask": np.full_like(batch["loss_mask"], np.nan)}
        return place(self, batch)

    monkeypatch.setattr(Trainer, "place", spoil)


@pytest.fixture
def _one_bad_batch(monkeypatch):
    _spoil(monkeypatch, BAD_STEP, BAD_STEP)


@pytest.mark.usefixtures("_one_bad_batch")
def test_stop_ends_before_the_update_and_keeps_a_good_checkpoint(plain, tmp_path):
    with pytest.raises(NonFiniteError, match=f"Step {BAD_STEP} is not finite: loss = nan, grad_norm = nan"):
        train(parse_config(plain))
    run = tmp_path / "run"
    assert saved_steps(run) == [5]
    assert all(np.isfinite(value).all() for value in saved_arrays(run, 5).values())
    # The folder is free again, and the batch is a good one this time.
    result = train(parse_config(plain))
    assert result.step == 20
    assert [step for step, _ in losses(run)] == list(range(1, 21))


@pytest.mark.usefixtures("_one_bad_batch")
def test_skip_leaves_the_step_out_counts_it_and_goes_on(plain, tmp_path):
    result = train(parse_config(changed(plain, optimizer__non_finite="skip")))
    assert result.finished
    run = tmp_path / "run"
    skipped = {record["step"]: record["updates_skipped"] for record in records(run) if "loss" in record}
    assert skipped == {step: float(step == BAD_STEP) for step in range(1, 21)}
    assert dict(losses(run))[BAD_STEP] is None
    assert dict(losses(run))[20] < dict(losses(run))[1]
    arrays = saved_arrays(run, 20)
    assert arrays["step"] == 20
    assert arrays["optimizer.0.count"] == 19
    assert all(np.isfinite(value).all() for value in arrays.values())


@pytest.mark.parametrize(("interval", "kept"), [(1, [5, 6]), (4, [4])])
def test_skipping_without_an_end_stops_and_leaves_the_good_checkpoints(
    plain, tmp_path, monkeypatch, interval, kept
):
    _spoil(monkeypatch, BAD_STEP, math.inf)
    config = changed(
        plain,
        optimizer__non_finite="skip",
        optimizer__skip_limit=6,
        checkpoint__interval=interval,
        checkpoint__keep_last=1,
    )
    with pytest.raises(NonFiniteError, match=r"Step 12 is not finite: .* the last of 6 in a row"):
        train(parse_config(config))
    assert saved_steps(tmp_path / "run") == kept


@pytest.mark.usefixtures("_one_bad_batch")
def test_a_save_that_is_due_in_a_skipped_step_follows_with_the_next_update(plain, tmp_path):
    config = changed(
        plain,
        optimizer__non_finite="skip",
        checkpoint__interval=BAD_STEP,
        checkpoint__keep_last=2,
        training__stop_at=16,
    )
    train(parse_config(config))
    # Stopped: none is deleted before the run has gone on from the last.
    assert saved_steps(tmp_path / "run") == [BAD_STEP + 1, 14, 16]
    train(parse_config(changed(config, training__stop_at=None)))
    assert saved_steps(tmp_path / "run") == [16, 20]


def test_an_absurd_learning_rate_ends_the_command_with_code_1_and_advice(recipe, tmp_path):
    run = tmp_path / "run"
    change = overrides(schedule__learning_rate=1e30, checkpoint__interval=1, optimizer__clip_norm=1.0)
    ended = mjx("train", recipe, f"run_dir={run}", *change, code=1)
    last = ended.stderr.strip().splitlines()[-1]
    assert "is not finite: loss = " in last
    assert "Its update was not applied. Lower the learning rate or lengthen the warm-up" in last
    newest = max(saved_steps(run))
    assert all(np.isfinite(value).all() for value in saved_arrays(run, newest).values())
