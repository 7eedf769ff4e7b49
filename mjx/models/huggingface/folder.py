"""A model as the Hugging Face hub gives it: a folder with a config, weights and a tokenizer."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

from mjx.errors import InputError
from mjx.files import local_path
from mjx.models.huggingface.sentence_modules import sentence_files
from mjx.models.huggingface.tensor_files import TensorFolder, open_tensors
from mjx.models.interop.stored_file import open_file, read_object

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tekken.json",
)
"""What a tokenizer may consist of; none has all of them."""

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
"""How pictures are made ready, and what stands in a text for them."""


class HuggingFaceFolder:
    """The local folder of a model in Hugging Face's layout: its config is read, its weights are not yet.

    Raises InputError when there is no such folder, when it has no config.json or a broken one, and when a
    file in it was not downloaded but stands for the real one (Git LFS, a link to nothing).
    """

    path: Path
    config: dict[str, Any]
    """config.json."""
    generation_config: dict[str, Any]
    """generation_config.json; empty where there is none."""
    tokenizer_files: tuple[str, ...]
    """The names of those of TOKENIZER_FILES that are there."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(local_path(path))
        _check_folder(self.path, os.fspath(path))
        self.config = read_object(self.path / CONFIG)
        has_generation_config = os.path.lexists(self.path / GENERATION_CONFIG)
        self.generation_config = read_object(self.path / GENERATION_CONFIG) if has_generation_config else {}
        self.tokenizer_files = tuple(name for name in TOKENIZER_FILES if os.path.lexists(self.path / name))
        for name in self.tokenizer_files:
            open_file(self.path / name).close()

    @staticmethod
    def is_one(path: str | os.PathLike[str]) -> bool:
        """Whether this is such a folder, and not one with a config.yaml of our own."""
        folder = Path(local_path(path))
        return os.path.lexists(folder / CONFIG) and not os.path.lexists(folder / "config.yaml")

    def tensors(self) -> TensorFolder:
        """The weights, open for reading. Raises InputError where `open_tensors` does."""
        return open_tensors(self.path)

    def copy_companions(self, target: Path) -> None:
        """Copies everything that is neither the model's weights nor code into the folder `target`, byte for
        byte.

        Links are followed. Raises InputError when it cannot be written.
        """
        names = [CONFIG, GENERATION_CONFIG, *self.tokenizer_files, *PROCESSOR_FILES]
        names += sentence_files(self.path)
        for name in names:
            if not os.path.lexists(self.path / name):
                continue
            with open_file(self.path / name) as source:
                try:
                    for parent in Path(name).parents[-2::-1]:
                        (target / parent).mkdir(exist_ok=True)
                    with open(target / name, "xb") as copy:
                        shutil.copyfileobj(source, copy)
                except OSError as error:
                    raise InputError(f"{target / name} cannot be written: {error.strerror}.") from error


def _check_folder(folder: Path, given: str) -> None:
    """That the folder and its config.json exist, or what to do."""
    if not os.path.lexists(folder):
        advice = "mjx reads local folders and downloads nothing"
        if re.fullmatch(r"\w[\w.-]*/[\w.-]+", given):
            advice += (
                ". If this is a model on the Hugging Face hub, download it first, e.g. with "
                f"`hf download {given} --local-dir {given.rpartition('/')[2]}`, and give that folder"
            )
        raise InputError(f"There is no folder {given}; {advice}.")
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the one that holds {CONFIG} and the weights.")
    if not os.path.lexists(folder / CONFIG):
        snapshots = sorted(folder.glob(f"snapshots/*/{CONFIG}"))
        advice = f"; {snapshots[-1].parent} has one" if snapshots else ""
        raise InputError(f"{folder} holds no {CONFIG}, so it is not a Hugging Face model{advice}.")
