"""How much memory an import takes: of a process that holds one of eight devices, and of one with all."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mjx.models.gpt.huggingface import ARCHITECTURES
from mjx.models.huggingface.safetensors_header import write_header

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 4096,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
}
"""2.1 GB in float32, a quarter of one per layer; the largest tensors are those of the MLPs, 67 MB each."""
LARGEST = 4 * CONFIG["hidden_size"] * CONFIG["intermediate_size"]

CHILD = """
import json, re, sys
from pathlib import Path

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
import jax.numpy as jnp
import numpy as np

from mjx.models.interop.load import read_shards
from mjx.trees import flatten
from mjx.models.common.parameter import abstract_parameters
from mjx.models.family import abstract_model
from mjx.models.huggingface.folder import HuggingFaceFolder
from mjx.models.huggingface.pretrained import read_config
from mjx.sharding import MeshConfig, build_mesh, default_rules
from mjx.models.interop.architectures import find_architecture


def kilobytes(key):
    return int(re.search(rf"{key}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])


folder = HuggingFaceFolder(sys.argv[1])
config = read_config(folder)[1]
names = find_architecture(folder.config)[1].name_map(config)
mesh = build_mesh(MeshConfig(fsdp=2, tensor=4))
abstract = abstract_parameters(abstract_model(config), mesh, default_rules())
device = mesh.devices.flat[int(sys.argv[2])]
jax.block_until_ready(jax.device_put(np.ones(8, np.float32), device))
before = kilobytes("VmRSS")
local = {}
if sys.argv[3:] == ["whole"]:
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=jax.sharding.SingleDeviceSharding(device)
        ),
        abstract,
    )
with folder.tensors() as tensors:
    names.check(tensors)
    for path, leaf in flatten(abstract).items():
        index = leaf.sharding.devices_indices_map(leaf.shape)[device]
        read = lambda index, path=path: names.read(tensors, path, index)
        local[path] = read_shards(leaf.shape, {device: index}, read)
    held = sum(shard.nbytes for shards in local.values() for shard in shards)
    print(json.dumps({"growth": 1024 * (kilobytes("VmHWM") - before), "local": held,
                      "marks": {path: int(jnp.sum(shard)) for path, [shard] in local.items()}}))
"""


def write_checkpoint(folder: Path, config: dict) -> int:
    """With weights in a sparse file, zeros but for a one at the end of every tensor; returns its size."""
    (folder / "config.json").write_text(json.dumps(config))
    architecture = next(a for a in ARCHITECTURES if a.model_type == "llama")
    shapes = architecture.name_map(architecture.config.to_ours(config, "config.json")).theirs
    sizes = {name: (shape, np.dtype(np.float32)) for name, shape in shapes.items()}
    path = folder / "model.safetensors"
    start, entries = write_header(sizes, {"format": "pt"})
    with path.open("wb") as file:
        file.write(start)
        for name, entry in entries.items():
            file.seek(entry.begin + 4 * math.prod(shapes[name]) - 4)
            file.write(np.float32(1).tobytes())
    return path.stat().st_size


def import_as(checkpoint: Path, *arguments: str) -> dict:
    """What a process reports that holds one of eight devices, or the whole model on it."""
    command = [sys.executable, "-c", CHILD, str(checkpoint), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_one_of_eight_processes_takes_a_fifth_of_a_checkpoint_at_most(tmp_path):
    size = write_checkpoint(tmp_path, CONFIG)
    assert size > 2e9
    last = import_as(tmp_path, "7")
    assert last["local"] < 0.13 * size
    assert last["growth"] < 0.2 * size
    assert last["growth"] <= 2 * LARGEST + last["local"]
    # The marks lie in the last rows and columns, whose owner is the last device.
    assert last["marks"]["decoder.segments.0.1.mlp.down.kernel"] == CONFIG["num_hidden_layers"]
    assert last["marks"]["embedding.weight"] == 1


def test_a_whole_import_takes_two_tensors_more_than_the_model_at_most(tmp_path):
    size = write_checkpoint(tmp_path, CONFIG | {"num_hidden_layers": 3})
    whole = import_as(tmp_path, "0", "whole")
    assert whole["local"] == pytest.approx(size, rel=0.01)
    assert whole["growth"] <= 2 * LARGEST + whole["local"]
