"""Files that are damaged, foreign or of another run are refused in one sentence, and left as they were."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from running import (
    assert_same_bits,
    environment,
    losses,
    mjx,
    saved_arrays,
    saved_steps,
)

from mjx.checkpoint.run_folder import RunFolder
from mjx.cli import main
from mjx.data.documents import KINDS, known_kinds


@pytest.fixture
def source(dataset, tmp_path):
    """A copy of the dataset to spoil: its prefix, and the override that trains on it."""
    for suffix in (".bin", ".idx"):
        shutil.copy(dataset.with_suffix(suffix), tmp_path / f"spoilt{suffix}")
    prefix = tmp_path / "spoilt"
    return prefix, f"data.sources=[{{path: {prefix}}}]"


@pytest.fixture
def run(undisturbed, tmp_path, recipe):
    """A copy of the finished run, its config that of this process's recipe."""
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    return folder


def _contents(folder) -> dict[str, bytes]:
    """All files but the locks, whose note names the last holder."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith("lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("suffix", "spoil", "sentence"),
    [
        (
            ".idx",
            lambda b: b[:100],
            "has 100 bytes, but 400 sequences and 401 document indices make 8042: it is truncated.",
        ),
        (".idx", lambda b: b[:20], "ends within its header (20 of 34 bytes): it is truncated."),
        (".idx", lambda b: b"PK" + b, "does not begin with MMIDIDX: it is not the index of a .bin file."),
        (".bin", lambda b: b[:-1], "is truncated."),
        (".bin", lambda b: b"", "is truncated."),
    ],
)
def test_a_damaged_dataset_is_named(refused, recipe, source, tmp_path, suffix, spoil, sentence):
    prefix, override = source
    path = prefix.with_suffix(suffix)
    path.write_bytes(spoil(path.read_bytes()))
    said = refused("train", recipe, f"run_dir={tmp_path / 'run'}", override)
    assert said.startswith(f"{path} ")
    assert said.endswith(sentence)


def test_a_missing_dataset_is_named(refused, recipe, source, tmp_path):
    prefix, override = source
    prefix.with_suffix(".idx").unlink()
    said = refused("train", recipe, f"run_dir={tmp_path / 'run'}", override)
    assert said == (f"{prefix}.idx does not exist: a dataset is a pair of files PREFIX.bin and PREFIX.idx.")


def test_a_token_beyond_the_vocabulary_is_found_when_it_is_read(refused, recipe, source, tmp_path):
    prefix, override = source
    tokens = np.fromfile(prefix.with_suffix(".bin"), np.uint16)
    tokens[::50] = 300
    tokens.tofile(prefix.with_suffix(".bin"))
    said = refused("train", recipe, f"run_dir={tmp_path / 'run'}", override)
    assert f"{prefix}.bin has the token id 300, but vocab_size = 257" in said
    assert "model.vocab_size: 301 at least" in said


@pytest.mark.parametrize(
    ("split", "part", "advice"),
    [
        (
            "100,0,0",
            "valid",
            "training.evaluation_rows=0 trains without validation; "
            'data.split="399,1,0" gives it one document, '
            "and data.validation takes it from files of its own.",
        ),
        ("0,100,0", "train", 'data.split="1,0,0" with training.evaluation_rows=0 gives it all.'),
    ],
)
def test_a_split_without_documents_is_named(refused, recipe, dataset, tmp_path, split, part, advice):
    said = refused("train", recipe, f"run_dir={tmp_path / 'run'}", f"data.split={split}")
    assert said == (
        f'{dataset}, {part}: data.split = "{split}" leaves the {part} part no document of 400. {advice}'
    )


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ("model.num_layers=3", " parameters of another shape or type (parameters.decoder.segments."),
        ("model.tie_embeddings=true", "1 parameter unexpected in it (parameters.head.weight)"),
        ("model.attention.qkv_bias=true", "3 parameters missing from it (parameters.decoder.segments."),
        ("optimizer.name=lion", "holds the state of another optimizer than the config describes"),
    ],
)
def test_a_run_of_another_model_or_optimizer_is_not_touched(refused, recipe, run, change, wrong):
    before = _contents(run)
    said = refused("train", recipe, f"run_dir={run}", change)
    assert said.startswith(f"The checkpoint {run}/checkpoints/20 holds ")
    assert wrong in said
    assert "Nothing was read." in said
    assert _contents(run) == before


def test_fewer_steps_than_the_checkpoint_has_are_refused(refused, recipe, run):
    before = _contents(run)
    assert refused("train", recipe, f"run_dir={run}", "training.steps=15") == (
        f"{run} has a checkpoint of step 20, beyond training.steps = 15; choose another run_dir or more steps"
    )
    assert _contents(run) == before


def test_a_run_folder_that_a_live_run_holds_is_refused(refused, recipe, run):
    before = _contents(run)
    with RunFolder(run):
        said = refused("train", recipe, f"run_dir={run}", "training.steps=30")
    assert said.startswith(f"{run} is in use by a live run: process ")
    assert _contents(run) == before


def test_a_folder_that_cannot_be_written_is_named(refused, recipe, run, tmp_path):
    (tmp_path / "file").write_text("")
    there = tmp_path / "file" / "below"
    assert refused("train", recipe, f"run_dir={there}").startswith(f"The run folder {there} cannot be used: ")
    assert refused("export", run, there).startswith(f"{there} cannot be made: ")
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"text": "a"}\n')
    said = refused("data", "build", lines, "--output", there, "--tokenizer", "byte")
    assert said.startswith(f"{there}.bin cannot be written: ")


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_it(
    main_here, refused, recipe, run, undisturbed, tmp_path, capsys, caplog
):
    damaged = run / "checkpoints" / "20"
    for file in (damaged / "state").rglob("d/*"):
        file.write_bytes(b"")
    sentence = f"The checkpoint {damaged} is damaged (state"
    instead = "that of step 10 is taken instead."
    main_here("export", run, tmp_path / "weights")
    assert f"wrote the weights of step 10 to {tmp_path / 'weights'}" in capsys.readouterr().out
    assert sentence in caplog.text
    assert instead in caplog.text
    assert refused("generate", run, "--prompt", "a", "--step", 20).startswith(
        f"The checkpoint {damaged} cannot be read: "
    )
    assert damaged.exists()
    ended = mjx("train", recipe, f"run_dir={run}")
    said = ended.stderr.splitlines()
    assert [line for line in said if sentence in line and line.endswith(instead)]
    assert f"resuming {run} at step 10" in said
    assert len(said) < 20
    assert saved_steps(run) == [10, 20]
    assert damaged.with_name("20.damaged").exists()
    assert_same_bits(saved_arrays(run, 20), saved_arrays(undisturbed, 20))
    for step in (10, 20):
        shutil.rmtree(run / "checkpoints" / str(step))
        (run / "checkpoints" / str(step)).mkdir()
    said = refused("train", recipe, f"run_dir={run}")
    assert said.startswith(f"The checkpoint {run}/checkpoints/10 cannot be read: ")


def test_a_full_disk_ends_the_run_and_keeps_the_checkpoints_before(recipe, half, undisturbed, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(half[0], run)
    before = _contents(run / "checkpoints" / "10")
    # A file-size limit is refused by the kernel as a full disk is, and needs no disk of its own.
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        f"from mjx.cli import main; main(['train', {str(recipe)!r}, 'run_dir={run}'])"
    )
    limited = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False
    )
    assert limited.returncode == 2, limited.stderr
    assert "Traceback" not in limited.stderr
    said = limited.stderr.splitlines()[-1]
    assert said.startswith("mjx: error: The checkpoint of step 20 could not be written: ")
    assert said.endswith("The checkpoints before it are untouched.")
    assert saved_steps(run) == [10]
    assert _contents(run / "checkpoints" / "10") == before

    mjx("train", recipe, f"run_dir={run}")
    assert losses(run) == losses(undisturbed)
    assert_same_bits(saved_arrays(run, 20), saved_arrays(undisturbed, 20))


def test_data_build_names_the_file_and_the_line(refused, tmp_path):
    def build(path, *more):
        return refused("data", "build", path, "--output", tmp_path / "out", "--tokenizer", "byte", *more)

    missing = tmp_path / "missing.txt"
    assert build(missing) == f"{missing} does not exist."
    page = tmp_path / "page.html"
    page.write_text("text")
    assert build(page) == f"{page} is of no known kind; known are {known_kinds(KINDS)}."
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"text": "a"}\n{"text": \n')
    assert build(lines).startswith(f"{lines}, line 2: not JSON (")
    lines.write_text('{"text": "a"}\n{"txt": "b"}\n')
    assert build(lines) == f'{lines}, line 2: no text under key "text" (it has txt).'
    assert build(lines, "--workers", 0) == "--workers = 0 must be at least 1"
    said = refused("data", "build", lines, "--output", tmp_path / "out", "--tokenizer", "bite")
    assert said == 'tokenizer = bite does not exist; give "byte", a tokenizer file or a folder with one.'
    assert not list(tmp_path.glob("*out*"))


def test_data_build_writes_what_training_reads(recipe, tmp_path, capsys):
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"text": "mesh axis"}\n{"text": "key"}\n')
    main(["data", "build", str(lines), "--output", str(tmp_path / "out"), "--tokenizer", "byte"])
    assert capsys.readouterr().out == (f"wrote 2 documents, 14 tokens to {tmp_path / 'out'}.bin and .idx\n")
    assert np.fromfile(tmp_path / "out.bin", np.uint16).tolist() == [*b"mesh axis", 256, *b"key", 256]
    again = ["--output", str(tmp_path / "out.bin"), "--tokenizer", "byte", "--skip-bad-lines"]
    main(["data", "build", str(tmp_path), *again])
    assert capsys.readouterr().out == (
        f"wrote 2 documents, 14 tokens to {tmp_path / 'out'}.bin and .idx\nleft out 0 bad lines\n"
    )
    lines.write_text('{"text": "mesh axis"}\nnonsense\n')
    main(["data", "build", str(lines), "--output", str(lines), "--tokenizer", "byte", "--skip-bad-lines"])
    assert (
        capsys.readouterr()
        .out.splitlines()[1]
        .startswith(f"left out 1 bad lines; the first: {lines}, line 2: not JSON (")
    )


def test_commands_on_a_folder_that_is_no_run_say_so(refused, run, tmp_path):
    nothing = tmp_path / "nothing"
    sentence = f"{nothing} is not a run folder: it has no config.yaml"
    said = refused("generate", nothing, "--prompt", "a")
    assert said.startswith(f"There is no folder {nothing}; mjx reads local folders and downloads nothing")
    assert refused("export", nothing, tmp_path / "out") == sentence
    assert not (tmp_path / "out").exists()
    assert not nothing.exists()


def test_generate_and_export_name_what_is_missing(refused, run, tmp_path):
    assert refused("generate", run, "--prompt", "").startswith("prompt 0 is empty")
    assert refused("generate", run, "--prompt", "a", "--step", 7) == (
        f"There is no checkpoint of step 7 in {run}/checkpoints, only of [10, 20]."
    )
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("kept")
    said = refused("export", run, full)
    assert said == f"{full} exists and is not an empty folder: give the name of a new one."
    assert (full / "mine").read_text() == "kept"
    shutil.rmtree(run / "tokenizer")
    assert refused("generate", run, "--prompt", "a") == (f"{run} has no tokenizer, which a text needs")
