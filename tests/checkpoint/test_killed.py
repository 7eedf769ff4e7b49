"""`kill -9` at any moment, in the middle of a save or of a deletion."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("save_until_killed.py")
LIVES = 15


def test_after_every_kill_the_newest_checkpoint_is_whole_and_no_finished_one_is_lost(tmp_path):
    run = subprocess.run(
        [sys.executable, SCRIPT, tmp_path, str(LIVES), "0"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    lives = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(lives) == LIVES
    reached = 0
    for life in lives:
        # A life that found a wrong array ends by itself, with its traceback.
        assert life["killed"], run.stderr[-4000:]
        assert (life["resumed"] or 0) >= reached
        reached = max([life["resumed"] or 0, *life["saved"]])
        left = [int(name) for name in life["left"] if name.isdecimal()]
        # keep_last = 2, the step that was just saved, and one that was about to be deleted
        assert len([step for step in left if step % 50]) <= 4
    assert reached > LIVES // 2
