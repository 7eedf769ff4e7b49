"""A run that was stopped and resumed is the run that was not."""

import json
import shutil

import pytest
from running import (
    assert_same_bits,
    changed,
    losses,
    mjx,
    saved_arrays,
    saved_steps,
    validation_losses,
)

from mjx.config import parse_config
from mjx.run.loop import train


def test_twenty_steps_are_ten_and_ten_more_bit_by_bit(recipe, undisturbed, half, tmp_path):
    run = tmp_path / "resumed"
    shutil.copytree(half[0], run)
    again = mjx("train", recipe, f"run_dir={run}")
    assert f"resuming {run} at step 10" in again.stderr
    assert [step for step, _ in losses(run)] == list(range(1, 21))
    assert losses(run) == losses(undisturbed)
    assert validation_losses(run) == validation_losses(undisturbed)
    for step in (10, 20):
        assert_same_bits(saved_arrays(run, step), saved_arrays(undisturbed, step))


def test_a_checkpoint_holds_step_parameters_and_both_moments(undisturbed):
    arrays = saved_arrays(undisturbed, 20)
    assert arrays["step"] == 20
    table = "parameters.embedding.weight"
    assert table in arrays, sorted(arrays)
    moments = [name for name in arrays if name.startswith("optimizer.") and name.endswith("embedding.weight")]
    assert len(moments) == 2
    for moment in moments:
        assert arrays[moment].shape == arrays[table].shape
        assert arrays[moment].any()


def test_dropout_and_learning_change_the_loss_of_this_recipe(undisturbed):
    # Otherwise the comparisons bit by bit would compare nothing.
    values = [loss for _, loss in losses(undisturbed)]
    assert len(set(values)) == 20
    assert values[0] == pytest.approx(5.55, abs=0.1)
    assert values[-1] < 3


def test_stop_at_keeps_the_schedule_of_the_whole_run_and_says_how_to_go_on(half):
    run, said = half
    assert saved_steps(run) == [10]
    assert "stopped after step 10; the same command resumes" in said
    assert [step for step, _ in validation_losses(run)] == [5, 10]
    assert not (run / "loss.png").exists()


def test_stop_at_behind_the_checkpoint_does_nothing(recipe, half, tmp_path):
    run = tmp_path / "resumed"
    shutil.copytree(half[0], run)
    before = saved_arrays(run, 10)
    mjx("train", recipe, f"run_dir={run}", "training.stop_at=10")
    assert [step for step, _ in losses(run)] == list(range(1, 11))
    assert saved_steps(run) == [10]
    assert_same_bits(saved_arrays(run, 10), before)


@pytest.mark.parametrize("mesh", [{"data": 2, "tensor": 4}, {"data": 1, "fsdp": 8}])
def test_a_run_goes_on_on_another_mesh_with_the_same_losses(tree, half, undisturbed, tmp_path, mesh):
    run = tmp_path / "resumed"
    shutil.copytree(half[0], run)
    result = train(parse_config(changed(tree, mesh=mesh, run_dir=str(run), logging__progress=False)))
    assert result.finished
    table = result.state.parameters["embedding"]["weight"]
    assert table.sharding.num_devices == 8
    assert not table.sharding.is_fully_replicated
    assert dict(losses(run)) == pytest.approx(dict(losses(undisturbed)), rel=1e-5)
    assert dict(validation_losses(run)) == pytest.approx(dict(validation_losses(undisturbed)), rel=1e-5)


def test_what_training_depends_on_and_was_changed_is_said_at_resuming(recipe, half, tmp_path):
    run = tmp_path / "resumed"
    shutil.copytree(half[0], run)
    said = mjx("train", recipe, f"run_dir={run}", "training.stop_at=11", "data.seed=7", "data.prefetch=1")
    assert "resuming with a changed config: data.seed: 1234 → 7" in said.stderr
    assert said.stderr.count("changed config") == 1


def test_a_finished_run_started_again_evaluates_and_changes_nothing(recipe, undisturbed, tmp_path):
    run = tmp_path / "again"
    shutil.copytree(undisturbed, run)
    mjx("train", recipe, f"run_dir={run}")
    assert losses(run) == losses(undisturbed)
    assert validation_losses(run) == validation_losses(undisturbed)
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert_same_bits(saved_arrays(run, 20), saved_arrays(undisturbed, 20))
