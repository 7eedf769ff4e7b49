"""What is made of a trained run: weights for others, text, and an account of what lives where."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from running import changed, environment, losses, mjx, parameters, saved_arrays

from mjx.cli import main
from mjx.commands.explain import explain
from mjx.config import load_config, parse_config
from mjx.data.tokenizers import load_tokenizer
from mjx.run.loop import build_trainer
from mjx.run.opened import read_inference_config
from mjx.trees import flatten, to_yaml
from mjx.words import readable_bytes

WITHOUT_MJX = """
import json, sys
sys.modules["mjx"] = None  # what follows may not import it
import numpy as np
try:
    import orbax.checkpoint.v1 as ocp
except ModuleNotFoundError:
    import orbax.checkpoint.experimental.v1 as ocp
named = {}
def walk(tree, path):
    for key, value in tree.items():
        if isinstance(value, dict):
            walk(value, path + [key])
        else:
            named[".".join(path + [key])] = value
walk(ocp.load(sys.argv[1]), [])
np.savez(sys.argv[2], **named)
"""


def test_exported_weights_are_the_checkpoint_s_for_orbax_alone(undisturbed, main_here, tmp_path, capsys):
    folder, out = tmp_path / "weights", tmp_path / "out.npz"
    main_here("export", undisturbed, folder, "--step", 10)
    assert f"wrote the weights of step 10 to {folder}" in capsys.readouterr().out
    subprocess.run([sys.executable, "-c", WITHOUT_MJX, folder, out], env=environment(), check=True)
    expected = parameters(saved_arrays(undisturbed, 10))
    with np.load(out) as read:
        assert {f"parameters.{name}" for name in read} == expected.keys()
        for name in read:
            assert read[name].tobytes() == expected[f"parameters.{name}"].tobytes()
    assert (folder / "config.yaml").read_text().startswith("model:\n  family: gpt\n")


def test_generated_text_goes_on_from_the_prompt_and_repeats_with_its_seed(undisturbed, main_here, capsys):
    def generate(*more: str) -> str:
        main_here("generate", undisturbed, "--prompt", "mesh ", "sampling.max_new_tokens=24", *more)
        return capsys.readouterr().out

    first = generate("sampling.seed=1")
    assert first.startswith("mesh ")
    assert len(first) > len("mesh ") + 10
    assert generate("sampling.seed=1") == first
    assert generate("sampling.seed=2") != first


def test_eight_devices_generate_what_one_does(undisturbed, main_here, capsys):
    arguments = ("generate", undisturbed, "--prompt", "mesh ax", "--prompt", "k", "sampling.temperature=0")
    one = mjx(*arguments).stdout
    assert one.startswith("mesh ax")
    main_here(*arguments, "mesh.data=2", "mesh.tensor=4")
    assert capsys.readouterr().out == one


def test_explain_lists_every_parameter_and_the_bytes_that_a_device_then_holds(tree, tmp_path, capsys):
    mesh = {"data": 1, "fsdp": 2, "tensor": 4}
    path = tmp_path / "recipe.yaml"
    path.write_text(to_yaml(changed(tree, mesh=mesh)))
    explain(str(path), [], None)
    table, _, rest = capsys.readouterr().out.partition("total")

    config = parse_config(changed(tree, mesh=mesh))
    trainer = build_trainer(config)
    real = flatten(trainer.init(0).parameters)
    held = 0
    for name, array in real.items():
        (line,) = [line for line in table.splitlines() if line.startswith(f"{name} ")]
        shard = next(s for s in array.addressable_shards if s.device == jax.devices()[0]).data
        assert line.endswith(f" {readable_bytes(shard.nbytes)}")
        held += shard.nbytes
    whole = sum(array.nbytes for array in real.values())
    total = rest.splitlines()[0]
    assert f"{readable_bytes(whole)} counted once" in total
    assert total.endswith(readable_bytes(held))
    assert held < whole / 4


def test_explain_needs_no_devices_of_the_mesh(recipe, main_here, capsys):
    main_here("explain", recipe, "mesh.tensor=4", "mesh.fsdp=2")
    assert "fsdp 2 × tensor 4 (8 devices)" in capsys.readouterr().out
    main_here("explain", recipe, "mesh.tensor=4", "--devices", 64)
    assert "data 16 × tensor 4 (64 devices)" in capsys.readouterr().out


def test_explain_shows_the_dtype_of_the_gpus_that_it_is_asked_about(recipe, main_here, capsys):
    for more, dtype in (
        ((), "float32"),
        (("--gpu", "h100"), "bfloat16"),
        (("runtime.platform=cuda",), "bfloat16"),
    ):
        main_here("explain", recipe, "model.dtype=auto", "--activations", *more)
        shown = capsys.readouterr().out
        assert f"parameters, computed with in {dtype}" in shown
        rows = [line for line in shown.splitlines() if "mlp.written h " in line]
        assert rows
        assert all(dtype in row for row in rows)


def test_a_run_folder_alone_says_how_it_was_made(undisturbed, tree):
    config = read_inference_config(str(undisturbed))
    assert config.model == parse_config(tree).model
    whole = load_config(undisturbed / "config.yaml")
    assert (whole.run_dir, whole.data) == (str(undisturbed), parse_config(tree).data)
    assert load_tokenizer(undisturbed / "tokenizer").encode("key") == [*b"key"]


def test_prompts_of_a_recipe_are_continued_at_the_end(tree, main_here, tmp_path, capsys, caplog):
    # Neither mathematics, nor the end of a style.
    path, run = tmp_path / "recipe.yaml", tmp_path / "$USER_$JOB [/b]"
    path.write_text(
        to_yaml(
            changed(
                tree,
                run_dir=str(run),
                logging__interval=10,
                # Learned positions are one row for all eight devices.
                training={"steps": 3, "batch_size": 8, "prompts": ["mesh [a] ", "key"]},
                model__dropout=0.0,
                model__attention={"num_heads": 4},
                model__max_positions=64,
            )
        )
    )
    main_here("train", path)
    said = (run / "sample.txt").read_text()
    assert said.startswith("mesh [a] ")
    assert "\n\nkey" in said
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert "mesh [a] " in capsys.readouterr().err
    assert [step for step, _ in losses(run)] == [3]

    # What cannot be written then does not fail a run that is saved.
    for file in ("loss.png", "sample.txt"):
        (run / file).unlink()
        (run / file).mkdir()
    main_here("train", path)
    assert "The run is done and saved, but not drawn: IsADirectoryError" in caplog.text
    assert "The run is done and saved, but not sampled from: IsADirectoryError" in caplog.text


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_every_command(flag, capsys, main_here):
    with pytest.raises(SystemExit) as exit_:
        main_here(flag)
    assert exit_.value.code == 0
    printed = capsys.readouterr().out
    for command in ("train", "generate", "explain", "export", "data", "launch"):
        assert f"    {command} " in printed, printed


def test_every_path_of_a_recipe_may_begin_with_the_home_folder(recipe, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "recipe.yaml").write_text(recipe.read_text())
    keys = ("run_dir", "data.cache_dir", "data.tokenizer", "runtime.compilation_cache")
    given = [*(f"{key}=~/{key}" for key in keys), "data.sources=[{path: ~/words}]"]
    main(["train", "~/recipe.yaml", *given, "--print-config"])
    printed = capsys.readouterr().out
    config = load_config(recipe, given)
    said = (config.run_dir, config.data.cache_dir, config.data.tokenizer, config.runtime.compilation_cache)
    assert said == tuple(f"{tmp_path}/{key}" for key in keys)
    assert config.data.sources[0].path == f"{tmp_path}/words"
    assert "~" not in printed
