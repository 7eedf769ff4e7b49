"""Validation data of its own: several sets, a loss each, logged and shown by name."""

import numpy as np
import pytest
from running import mjx, records, validation_losses

from mjx.data.indexed import IndexedDataset, IndexedDatasetWriter
from mjx.metrics.curve import draw_loss_curve


@pytest.fixture
def held_out(dataset, tmp_path):
    """The documents that `data.split` of the recipe keeps for validation, as files of their own."""
    tokens = IndexedDataset(dataset)
    with IndexedDatasetWriter(tmp_path / "held", np.uint16) as writer:
        for document in range(360, 400):
            writer.add_sequence(tokens[document])
            writer.end_document()
    return tmp_path / "held"


def test_each_set_has_a_loss_by_its_name(recipe, undisturbed, held_out, tmp_path):
    run = tmp_path / "run"
    sets = [
        f"data.validation.held.sources=[{{path: {held_out}}}]",
        f"data.validation.twice.sources=[{{path: {held_out}}}, {{path: {held_out}}}]",
    ]
    command = ("train", recipe, f"run_dir={run}", "training.stop_at=5", "checkpoint.interval=5", *sets)
    said = mjx(*command).stderr
    names = {"validation_loss/held", "validation_loss/twice"}
    (losses,) = ({name: r[name] for name in names} for r in records(run) if names & r.keys())
    assert validation_losses(run) == []
    assert (5, losses["validation_loss/held"]) == validation_losses(undisturbed)[0]
    held, twice = losses["validation_loss/held"], losses["validation_loss/twice"]
    assert f"step 5: validation loss held {held:.4f}, twice {twice:.4f}\n" in said

    # A set more: only its loss is new at the step where the others have been logged.
    said = mjx(*command, f"data.validation.more.sources=[{{path: {held_out}}}]").stderr
    assert "resuming with a changed config" not in said
    found = [(r["step"], name) for r in records(run) for name in r if name.startswith("validation_loss")]
    assert sorted(found) == [(5, name) for name in sorted({*names, "validation_loss/more"})]
    assert draw_loss_curve(run).is_file()
