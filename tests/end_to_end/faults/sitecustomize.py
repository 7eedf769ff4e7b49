"""Faults for processes of the tests: Python imports this at its start where the folder is on PYTHONPATH.

MJX_TEST_FAULT: `raise` lets the fourth step of process 1 fail, and `record` notes the samples that each
process reads; both write into the folder MJX_TEST_NOTES. `sample` lets what process 1 samples fail.
"""

import json
import os
import time
from pathlib import Path

fault = os.environ.get("MJX_TEST_FAULT")
process = os.environ.get("MJX_PROCESS_ID")

if fault == "raise" and process == "1":
    from mjx.training.trainer import Trainer

    step = Trainer.step
    steps = []

    def failing_step(self, state, batch):
        steps.append(1)
        if len(steps) == 4:
            Path(os.environ["MJX_TEST_NOTES"], "raised").write_text(str(time.time()))
            raise RuntimeError("the fourth step was told to fail")
        return step(self, state, batch)

    Trainer.step = failing_step

if fault == "sample" and process == "1":
    from mjx.inference.generate import Generator

    def no_room(self, *arguments, **options):
        raise MemoryError("no room")

    Generator.__call__ = no_room

if fault == "record" and process is not None:
    from mjx.data.gpt.dataset import GPTDataset

    read = GPTDataset.read

    def recording_read(self, samples):
        with Path(os.environ["MJX_TEST_NOTES"], f"{process}.jsonl").open("a") as notes:
            notes.write(json.dumps([int(sample) for sample in samples]) + "\n")
        return read(self, samples)

    GPTDataset.read = recording_read
