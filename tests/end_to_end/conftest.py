"""A tiny dataset, a tiny recipe, and one run of it that nothing disturbed."""

import fcntl
import random
from collections.abc import Sequence
from pathlib import Path

import jax
import pytest
from running import WORDS, Tree, mjx

from mjx.cli import main
from mjx.data.build import write_documents
from mjx.data.tokenizers import load_tokenizer
from mjx.launch import runtime
from mjx.trees import to_yaml


@pytest.fixture(scope="session")
def dataset(shared) -> Path:
    """The prefix of 72 thousand bytes of ten words."""
    draw = random.Random(0)
    texts = (" ".join(draw.choices(WORDS, k=draw.randint(5, 60))) for _ in range(400))
    prefix = shared / "words"
    write_documents(texts, prefix, load_tokenizer("byte"))
    return prefix


@pytest.fixture(scope="session")
def tree(dataset) -> Tree:
    """A recipe that trains in a second: two layers of 32 features, dropout, 20 steps."""
    return {
        "model": {
            "family": "gpt",
            "num_layers": 2,
            "hidden_size": 32,
            "vocab_size": 257,
            "dtype": "float32",
            "dropout": 0.1,
            "attention": {"num_heads": 4, "dropout": 0.1, "rope": {"base": 10000.0}},
            "mlp": {"features": 64},
        },
        "data": {
            "sources": [{"path": str(dataset)}],
            "tokenizer": "byte",
            "sequence_length": 32,
            "split": "90,10,0",
            "cache_dir": str(dataset.with_name("cache")),
        },
        "training": {"steps": 20, "batch_size": 16, "evaluation_rows": 32, "evaluation_interval": 5},
        "schedule": {"learning_rate": 1e-2, "warmup_steps": 2},
        "checkpoint": {"interval": 10, "keep_last": 100},
        "logging": {"interval": 1, "tensorboard": False},
        "sampling": {"max_new_tokens": 8},
    }


@pytest.fixture(scope="session")
def recipe(tree, shared, tmp_path_factory) -> Path:
    """The recipe as a file; programs that are compiled for it once are kept for all its runs."""
    path = tmp_path_factory.mktemp("recipe") / "words.yaml"
    path.write_text(to_yaml(tree | {"runtime": {"compilation_cache": str(shared / "xla")}}))
    return path


@pytest.fixture(scope="session")
def run_once(shared, recipe):
    """Trains the recipe with overrides, once for all pytest processes; returns the run's folder (not to be
    written to) and what it said."""

    def run(
        name: str, *overrides: str, launch: Sequence[object] = (), **environment: str
    ) -> tuple[Path, str]:
        folder, said = shared / name, shared / f"{name}.err"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not said.exists():
                ended = mjx(*launch, "train", recipe, f"run_dir={folder}", *overrides, **environment)
                said.write_text(ended.stderr)
        return folder, said.read_text()

    return run


@pytest.fixture(scope="session")
def undisturbed(run_once) -> Path:
    """The folder of a run of all 20 steps on one device."""
    return run_once("undisturbed")[0]


@pytest.fixture(scope="session")
def half(run_once) -> tuple[Path, str]:
    """The folder of a run that stopped itself after 10 of its 20 steps, and what it said."""
    return run_once("half", "training.stop_at=10")


@pytest.fixture
def main_here(monkeypatch):
    """The command line in this process, with its eight devices, whatever another test has started before."""
    jax.devices()

    def run(*arguments: object) -> None:
        monkeypatch.setattr(runtime, "_started", None)
        main([str(argument) for argument in arguments])

    return run


@pytest.fixture
def refused(main_here, capsys):
    """Runs the command line, which must refuse; the sentence it says."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main_here(*arguments)
        out, err = capsys.readouterr()
        assert exit_.value.code == 2, err
        assert out == ""
        said = [line for line in err.splitlines() if not line.startswith(("process ", "resuming "))]
        assert len(said) == 1, err
        opening, colon, sentence = said[0].partition("mjx: error: ")
        assert (opening, colon) == ("", "mjx: error: ")
        return sentence

    return run
