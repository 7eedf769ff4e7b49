"""The weights that a run starts from, when they are another's."""

import shutil

import numpy as np

from mjx.checkpoint.checkpointer import Checkpointer
from mjx.checkpoint.run_folder import RunFolder
from mjx.errors import InputError
from mjx.init_from import is_run_folder
from mjx.launch.primary import on_primary
from mjx.models.family import ModelConfig
from mjx.models.huggingface import load_pretrained
from mjx.models.huggingface.folder import HuggingFaceFolder
from mjx.trees import Tree


def load_initial(path: str, config: ModelConfig, abstract: Tree) -> Tree:
    """The weights of a Hugging Face folder, or of a run's newest checkpoint, in float32 on `abstract`'s
    shardings.

    Raises:
        InputError: there are none, or they are not those of the model.
    """
    if not is_run_folder(path):
        return load_pretrained(HuggingFaceFolder(path), config, abstract, np.float32)
    with Checkpointer(RunFolder(path).checkpoints) as checkpointer:
        if checkpointer.latest_step() is None:
            raise InputError(f"init_from = {path} has no checkpoint yet")
        return checkpointer.restore({"parameters": abstract}, partial=True)[0]["parameters"]


def keep_companions(path: str, folder: RunFolder) -> None:
    """What lay beside the weights (config.json, tokenizer), kept for an export; once per run folder."""

    def copy() -> None:
        if folder.huggingface.exists():
            return
        if not is_run_folder(path):
            folder.huggingface.mkdir()
            HuggingFaceFolder(path).copy_companions(folder.huggingface)
        elif RunFolder(path).huggingface.is_dir():
            shutil.copytree(RunFolder(path).huggingface, folder.huggingface)

    on_primary(copy)
