import builtins
import json
import math
import os
import subprocess
import sys
import types
from pathlib import Path

import jax
import pytest

from mjx.errors import InputError
from mjx.metrics.sinks import JSONLinesSink, LoggingConfig, open_sinks, read_metrics

QUIET = LoggingConfig(tensorboard=False)


def write_steps(folder, steps, resume_step=0, config=QUIET):
    sinks = open_sinks(config, folder, resume_step=resume_step)
    for step in steps:
        sinks.write(step, {"loss": 10.0 / step})
    sinks.close()


def steps_of(folder):
    return [record["step"] for record in read_metrics(folder / "metrics.jsonl")]


def test_each_write_is_one_json_line_on_the_disk_at_once(tmp_path):
    sink = JSONLinesSink(tmp_path / "metrics.jsonl")
    sink.write(1, {"loss": 2.5, "grad_norm": math.inf, "other": math.nan})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    record = json.loads(lines[0], parse_constant=pytest.fail)
    assert record.pop("time") > 1e9
    assert record == {"step": 1, "loss": 2.5, "grad_norm": None, "other": None}
    sink.close()


def test_resuming_drops_what_the_dead_run_wrote_about_later_steps(tmp_path):
    write_steps(tmp_path, [10, 20, 30, 40])
    kept = (tmp_path / "metrics.jsonl").read_text().splitlines()[:2]
    write_steps(tmp_path, [30, 40, 50], resume_step=20)
    assert steps_of(tmp_path) == [10, 20, 30, 40, 50]
    assert (tmp_path / "metrics.jsonl").read_text().splitlines()[:2] == kept
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_line_cut_short_by_a_dying_run_is_dropped(tmp_path):
    write_steps(tmp_path, [10, 20])
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 20, "lo')
    write_steps(tmp_path, [30], resume_step=20)
    assert steps_of(tmp_path) == [10, 20, 30]


def test_a_fresh_start_in_a_used_folder_begins_an_empty_file(tmp_path):
    write_steps(tmp_path, [10, 20])
    write_steps(tmp_path, [10])
    assert steps_of(tmp_path) == [10]


def test_a_failed_replacement_leaves_the_old_file_whole(tmp_path, monkeypatch):
    write_steps(tmp_path, [10, 20])
    before = (tmp_path / "metrics.jsonl").read_text()

    def full(descriptor):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_steps(tmp_path, [20], resume_step=10)
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_a_broken_line_in_the_middle_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nnonsense\n{"step": 3}\n')
    with pytest.raises(InputError, match=r"metrics.jsonl, line 2 .*nonsense"):
        read_metrics(path)
    with pytest.raises(InputError, match="does not exist"):
        read_metrics(tmp_path / "none.jsonl")


def test_tensorboard_gets_every_scalar_and_forgets_the_dead_runs_later_steps(tmp_path):
    write_steps(tmp_path, [1, 2, 3], config=LoggingConfig())
    write_steps(tmp_path, [3], resume_step=2, config=LoggingConfig())
    events = []
    for path in (tmp_path / "tensorboard").iterdir():
        events += list(read_events(path))
    scalars = sorted((e.step, v.simple_value) for e in events for v in e.summary.value if v.tag == "loss")
    assert [step for step, _ in scalars] == [1, 2, 3, 3]
    assert scalars[0][1] == 10.0
    starts = [e.step for e in events if e.HasField("session_log")]
    assert sorted(starts) == [1, 3]  # TensorBoard drops everything older from these steps on


def read_events(path):
    from tensorboardX.proto.event_pb2 import Event

    data = path.read_bytes()
    while data:  # a record: length (8), its checksum (4), the event, its checksum (4)
        length = int.from_bytes(data[:8], "little")
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def test_tensorboard_does_not_import_torch_and_leaves_it_to_others(tmp_path):
    (tmp_path / "torch.py").write_text("print('torch is imported')\n")
    code = (
        "from mjx.metrics.sinks import TensorBoardSink\n"
        f"sink = TensorBoardSink({str(tmp_path / 'events')!r})\n"
        "sink.write(1, {'loss': 2.0})\n"
        "sink.close()\n"
        "print('written')\n"
        "import torch\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": path}
    said = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert said == "written\ntorch is imported\n"
    assert list((tmp_path / "events").iterdir())


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    write_steps(tmp_path / "run", [1], config=LoggingConfig(wandb_project="p"))
    assert not (tmp_path / "run").exists()


def test_wandb_that_is_not_installed_is_an_error_that_says_what_to_install(tmp_path, monkeypatch):
    real_import = builtins.__import__

    def without_wandb(name, *args, **kwargs):
        if name == "wandb":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_wandb)
    with pytest.raises(InputError, match=r"wandb_project = llm needs .*pip install 'mjx\[wandb\]'"):
        open_sinks(LoggingConfig(wandb_project="llm"), tmp_path)


class FakeRun:
    def __init__(self, options):
        self.options, self.logged, self.finished = options, [], False

    def define_metric(self, *args, **kwargs):
        pass

    def log(self, values):
        self.logged.append(values)

    def finish(self):
        self.finished = True


def test_wandb_goes_on_in_the_same_run_after_resuming_and_in_a_new_one_after_a_fresh_start(
    tmp_path, monkeypatch
):
    runs = []

    def init(**options):
        runs.append(FakeRun(options))
        return runs[-1]

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    config = LoggingConfig(tensorboard=False, wandb_project="llm", wandb_entity="team")
    folder = tmp_path / "gpt-small"
    write_steps(folder, [1, 2], config=config)
    write_steps(folder, [2], resume_step=1, config=config)
    write_steps(folder, [1], config=config)
    assert [run.options["project"] for run in runs] == ["llm"] * 3
    assert runs[0].options["name"] == "gpt-small"
    assert runs[0].options["entity"] == "team"
    assert runs[0].logged == [{"step": 1, "loss": 10.0}, {"step": 2, "loss": 5.0}]
    assert runs[0].options["id"] == runs[1].options["id"] != runs[2].options["id"]
    assert all(run.finished and run.options["resume"] == "allow" for run in runs)
    (folder / "wandb_id").write_text("")  # of a disk that was full
    write_steps(folder, [2], resume_step=1, config=config)
    assert runs[-1].options["id"]


def test_a_config_that_cannot_work_is_refused_by_name_and_value():
    with pytest.raises(InputError, match="interval = 0"):
        LoggingConfig(interval=0)
    with pytest.raises(InputError, match="wandb_entity = team has no meaning"):
        LoggingConfig(wandb_entity="team")
